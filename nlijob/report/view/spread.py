"""The first screen's chart of several trainings: base model, mean, and each training as a point.

It is made of plain elements, so that its text keeps its size on every screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from nlijob.analysis.wording import percent, plural, with_interval
from nlijob.records.intervals import Interval
from nlijob.records.outcome import Results
from nlijob.records.trials import Trials
from nlijob.report.view.parts import View
from nlijob.report.view.text import unbroken

STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Distances between the ticks of an axis, as shares."""
MOST_TICKS = 6
NEAR = 0.04
"""Points that are closer than this share of the axis are drawn at different heights."""
HEIGHTS = (0, -1, 1)
"""Heights of neighbouring points, from the middle of their strip."""


@dataclass(frozen=True)
class Axis:
    """An axis of shares that begins and ends with a tick."""

    low: float
    high: float
    step: float

    @classmethod
    def around(cls, low: float, high: float) -> Axis:
        """The axis from 0 to 1 at most that holds both figures, with at most `MOST_TICKS` ticks."""
        low, high = max(0.0, low), min(1.0, high)
        for step in STEPS:
            first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
            if last - first < MOST_TICKS:
                break
        if first == last:  # all figures are the same, and it is a tick
            first, last = (first, first + 1) if low < 1 else (first - 1, last)
        return cls(first * step, last * step, step)

    def place(self, share: float) -> float:
        """Where a share lies, in percent of the axis."""
        return 100 * (min(max(share, self.low), self.high) - self.low) / (self.high - self.low)

    def ticks(self) -> Iterator[View]:
        """The ticks with their places."""
        for number in range(round((self.high - self.low) / self.step) + 1):
            share = self.low + number * self.step
            yield View(text=f"{round(100 * share, 6):g}\u00a0%", place=self.place(share))


def spread_chart(results: Results, trials: Trials) -> View:
    """Base model with its interval, mean of the trainings with its interval, and each training."""
    base, mean = results.base, trials.accuracy
    bounds = (base.accuracy_interval, mean.interval)
    figures = [one.accuracy for one in trials.trials]
    axis = Axis.around(
        min(*figures, *(one.low for one in bounds)), max(*figures, *(one.high for one in bounds))
    )
    return View(
        lanes=[
            _lane("base model", "before", axis, base.accuracy, base.accuracy_interval),
            _lane(f"mean of {len(figures)}", "after", axis, mean.mean, mean.interval),
        ],
        points=list(_points(trials, axis)),
        ticks=list(axis.ticks()),
        caption=unbroken(
            "Test accuracy. Bars are 95 % intervals: of the base model for other rows, of the mean "
            "for other rows and other trainings. Each ring is one training; the filled one is "
            f"{trials.kept}, whose adapter is kept."
        ),
        text=(
            f"Base model {with_interval(base.accuracy, base.accuracy_interval)}. Mean of "
            f"{plural(len(figures), 'training')} {with_interval(mean.mean, mean.interval)}. Single "
            f"trainings from {percent(mean.lowest)} to {percent(mean.highest)}."
        ),
    )


def _lane(name: str, side: str, axis: Axis, share: float, bounds: Interval) -> View:
    low, high = axis.place(bounds.low), axis.place(bounds.high)
    return View(name=name, side=side, place=axis.place(share), low=low, width=high - low)


def _points(trials: Trials, axis: Axis) -> Iterator[View]:
    """The trainings by accuracy. Neighbours that would cover each other differ in height."""
    before, turn = -math.inf, 0
    for one in sorted(trials.trials, key=lambda one: one.accuracy):
        place = axis.place(one.accuracy)
        turn = (turn + 1) % len(HEIGHTS) if place - before < 100 * NEAR else 0
        before = place
        yield View(
            text=f"{one.name}: {percent(one.accuracy)}",
            place=place,
            height=HEIGHTS[turn],
            kept=one.name == trials.kept,
        )
