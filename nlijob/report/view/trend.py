"""A figure of several runs over time, as a small drawing that needs no plotting library.

The drawing is stretched to the width that there is, so it holds lines and dots only, and its texts
stand around it.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nlijob.records.intervals import Interval
from nlijob.report.view.parts import View

WIDTH, HEIGHT = 1000.0, 200.0
"""Size of the drawing, in its own units."""
MARGIN = 12.0
"""Distance of the first and the last run from the sides, in the same units."""
MANY = 40
"""From this many runs on, their dots are small."""
STEP = 0.05
"""The axis of an accuracy begins and ends at a multiple of this."""


@dataclass(frozen=True)
class Point:
    """A run in a trend."""

    moment: datetime.datetime
    """When it was started."""
    value: float
    note: str
    """What is shown of it where the pointer rests on its dot."""
    before: float | None = None
    interval: Interval | None = None


def accuracy_trend(points: Sequence[Point], label: str, text: Callable[[float], str]) -> View:
    """Accuracies with their intervals, and those before tuning, the oldest first."""
    values = [p.value for p in points] + [p.before for p in points if p.before is not None]
    bounds = [bound for p in points if p.interval for bound in (p.interval.low, p.interval.high)]
    low = math.floor(min(values + bounds) / STEP) * STEP
    high = min(1.0, math.ceil(max(values + bounds) / STEP) * STEP)
    return _trend(points, label, text, (low, high))


def amount_trend(points: Sequence[Point], label: str, text: Callable[[float], str]) -> View:
    """Amounts, such as times; the axis begins at 0."""
    high = max(point.value for point in points)
    return _trend(points, label, lambda value: text(value) if value else "0", (0.0, high))


def _trend(
    points: Sequence[Point],
    label: str,
    text: Callable[[float], str],
    axis: tuple[float, float],
) -> View:
    low, high = axis
    across = _places([point.moment for point in points])

    def down(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return HEIGHT * (1 - share)

    placed = list(zip(across, points, strict=True))
    before = [(x, down(p.before)) for x, p in placed if p.before is not None]
    uncertain = [(x, p.interval) for x, p in placed if p.interval]
    upper = [(x, down(one.high)) for x, one in uncertain]
    lower = [(x, down(one.low)) for x, one in reversed(uncertain)]
    return View(
        label=label,
        size=f"0 0 {WIDTH:g} {HEIGHT:g}",
        high=text(high),
        low=text(low),
        first=f"{points[0].moment:%Y-%m-%d}",
        last=f"{points[-1].moment:%Y-%m-%d}",
        band=_path(upper + lower) + "Z" if uncertain else "",
        before=_path(before) if before else "",
        after=_path([(x, down(p.value)) for x, p in placed]),
        is_dense=len(points) >= MANY,
        dots=tuple(View(path=f"M{x:.1f} {down(p.value):.1f}h0", note=p.note) for x, p in placed),
    )


def _places(moments: Sequence[datetime.datetime]) -> list[float]:
    """How far right each moment is; in the middle where all are the same."""
    first, last = moments[0], moments[-1]
    whole = (last - first).total_seconds()
    inner = WIDTH - 2 * MARGIN
    return [
        MARGIN + inner * ((one - first).total_seconds() / whole if whole else 0.5)
        for one in moments
    ]


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
