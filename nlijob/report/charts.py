"""Charts as inline SVG text, drawn with matplotlib's object-oriented interface.

Colours are CSS variables of the page, so that charts follow the light and dark themes. Text stays
text. Element ids start with the name of the chart, so that a page can hold several charts. A chart
as wide as the page is drawn again for phones. The same data always give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from nlijob.analysis.wording import (
    decimal,
    interval,
    percent,
    points,
    points_interval,
    signed,
    with_interval,
)
from nlijob.records.intervals import Interval
from nlijob.report.chart_drawing import (
    ACCENT,
    AFTER,
    BAND,
    BEFORE,
    HEIGHT,
    INK,
    MUTED,
    PHONE,
    SURFACE,
    TEST,
    WIDE,
    Plot,
    floor,
    half,
    legend,
    named_rows,
    percent_axis,
    some,
    tick,
    wide,
)
from nlijob.report.chart_svg import Point

MOST_NUMBERED = 12
"""Bars of a chart that have their counts above them; more would cover each other."""
ABOVE_STAGES = 1.09
"""Height of a legend above the names of the stages, in heights of the plot."""
ROWS, NAMED_ROWS = (0.2, 0.35, 0.3, 0.05), (0.2, 0.35, 0.5, 0.05)
CURVES = (0.65, 0.15, 0.5, 0.35)
TIME, ONE_LINE = (0.75, 0.2, 0.55), 0.3

SELECTED: dict[str, Any] = {
    **{"linestyle": "none", "marker": "o", "ms": 8},
    **{"mfc": "none", "mec": ACCENT, "mew": 1.4},
}
"""The ring around the figure of a selected epoch."""


@dataclass(frozen=True)
class Change:
    """One figure before and after, as shares from 0 to 1."""

    name: str
    before: float | None
    after: float | None
    before_interval: Interval | None = None
    after_interval: Interval | None = None


@dataclass(frozen=True)
class Line:
    """A line over time, interrupted where attempts ended."""

    label: str
    times: Sequence[float]
    values: Sequence[float | None]
    colour: str = AFTER


@dataclass(frozen=True)
class Difference:
    """A change with its interval, as shares from -1 to 1."""

    name: str
    value: float
    bounds: Interval
    is_significant: bool


@dataclass(frozen=True)
class Reliability:
    """Reliability bins of one model, without empty bins; all figures are shares from 0 to 1."""

    label: str
    confidence: Sequence[float]
    accuracy: Sequence[float]
    bounds: Sequence[Interval]
    colour: str
    marker: str


@dataclass(frozen=True)
class Trade:
    """What one training lost on general text, in nats, and gained in accuracy (-1 to 1)."""

    loss: float
    loss_bounds: Interval | None
    gain: float
    gain_bounds: Interval
    is_kept: bool


@dataclass(frozen=True)
class Curve:
    """A figure of one training after each epoch."""

    values: Mapping[int, float]
    """Epoch -> figure."""
    selected: int
    kept: bool
    """Whether it is the training whose adapter is kept."""


@dataclass(frozen=True)
class Span:
    """The time span of a stage in seconds, shown in the background."""

    label: str
    start: float
    end: float


def change_chart(name: str, title: str, caption: str, changes: Sequence[Change]) -> Plot:
    """Figures before and after tuning, one row each, with intervals if there are any."""

    def draw(axes: Axes, narrow: bool) -> list[Point]:
        found: list[Point] = []
        for row, change in enumerate(reversed(changes)):
            found = _draw_change(axes, row, change) + found
        named_rows(axes, [change.name for change in changes], narrow)
        axes.set_xlim(0, 1)
        percent_axis(axes.xaxis)
        return found

    rows = len(changes)
    return wide(name, title, caption, draw, 0.5 + 0.4 * rows, 0.4 + 0.72 * rows, ROWS)


def accuracy_by_epoch(
    name: str,
    title: str,
    caption: str,
    epochs: Sequence[int],
    validation: Sequence[float],
    bounds: Sequence[Interval],
    test: Sequence[float | None],
    base_validation: float | None,
    base_test: float,
    selected: int,
) -> Plot:
    """Accuracy after every epoch; epoch 0 is the base model."""

    def draw(axes: Axes, _: bool) -> list[Point]:
        low, high = [one.low for one in bounds], [one.high for one in bounds]
        axes.fill_between(epochs, low, high, color=BAND, linewidth=0, label="95 % interval")
        base = [] if base_validation is None else [base_validation]
        xs = [0, *epochs] if base else list(epochs)
        axes.plot(xs, [*base, *validation], color=AFTER, marker="o", label="validation")
        _draw_test(axes, epochs, test, base_test)
        chosen = validation[list(epochs).index(selected)]
        axes.plot([selected], [chosen], "o", ms=13, mfc="none", mec=ACCENT, mew=2, label="selected")
        axes.set_xticks([0, *epochs], ["base", *map(str, epochs)])
        axes.margins(x=0.09)  # "base" must not touch the lowest percentage
        axes.set_xlabel("epoch")
        axes.set_ylim(floor([*low, *base, base_test, *_known(test)]), 1.0)
        percent_axis(axes.yaxis)
        legend(axes)
        tested = [(0, base_test), *zip(epochs, test, strict=True)] if _known(test) else []
        return [
            *(Point(0, value, f"base model, validation: {percent(value)}") for value in base),
            *(
                Point(epoch, value, f"epoch {epoch}, validation: {with_interval(value, own)}")
                for epoch, value, own in zip(epochs, validation, bounds, strict=True)
            ),
            *(
                Point(epoch, value, f"{_epoch(epoch)}, test: {percent(value)}")
                for epoch, value in tested
                if value is not None
            ),
        ]

    return half(name, title, caption, draw)


def loss_by_epoch(
    name: str,
    title: str,
    caption: str,
    epochs: Sequence[int],
    train: Sequence[float],
    validation: Sequence[float],
    selected: int,
) -> Plot:
    """Training and validation loss after every epoch."""

    def draw(axes: Axes, _: bool) -> list[Point]:
        axes.plot(epochs, train, color=BEFORE, marker="s", label="training")
        axes.plot(epochs, validation, color=AFTER, marker="o", label="validation")
        axes.axvline(selected, color=ACCENT, linewidth=1.2, linestyle=":", label="selected")
        axes.set_xticks(list(epochs))
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss (nats)")
        axes.set_ylim(bottom=0)
        legend(axes)
        return [
            Point(epoch, value, f"epoch {epoch}, {what} loss: {decimal(value)} nats")
            for what, values in (("training", train), ("validation", validation))
            for epoch, value in zip(epochs, values, strict=True)
        ]

    return half(name, title, caption, draw)


def curves_by_epoch(
    name: str,
    title: str,
    caption: str,
    curves: Sequence[Curve],
    unit: str,
) -> Plot:
    """A figure of each training after every epoch, their mean, and the selected epochs.

    `unit` is the name of the vertical axis; "" stands for shares, shown in percent.
    """
    mean = mean_curve(curves)
    chosen = [(curve.selected, curve.values[curve.selected]) for curve in curves]

    def draw(axes: Axes, _: bool) -> list[Point]:
        for curve in curves:
            _draw_curve(axes, curve)
        axes.plot([*mean], [*mean.values()], color=AFTER, linewidth=2.6, marker="o", label="mean")
        axes.plot(*zip(*chosen, strict=True), **SELECTED, label="selected")
        axes.set_xticks([*mean])
        axes.set_xlabel("epoch")
        if unit:
            axes.set_ylabel(unit)
            axes.set_ylim(bottom=0)
        else:
            known = [value for curve in curves for value in curve.values.values()]
            axes.set_ylim(floor(known), 1.0)
            percent_axis(axes.yaxis)
        legend(axes)
        word = decimal if unit else percent
        return [
            *(Point(x, y, f"epoch {x}, mean of the trainings: {word(y)}") for x, y in mean.items()),
            *(Point(x, y, f"a training's selected epoch {x}: {word(y)}") for x, y in chosen),
        ]

    return half(name, title, caption, draw)


def counts_chart(
    name: str, title: str, caption: str, counts: Sequence[int], label: str, unit: str
) -> Plot:
    """Bars of counts; the first bar is of 0, the next of 1, and so on."""

    def draw(axes: Axes, _: bool) -> list[Point]:
        axes.bar(range(len(counts)), counts, color=AFTER, width=0.8)
        if len(counts) <= MOST_NUMBERED:
            for number, height in enumerate(counts):
                axes.annotate(
                    f"{height:,}",
                    (number, height),
                    (0, 2),
                    textcoords="offset points",
                    ha="center",
                    color=INK,
                )
            axes.set_xticks(range(len(counts)))
        axes.grid(visible=False, axis="x")
        axes.set_xlabel(label)
        axes.set_ylabel(unit)
        axes.set_ylim(0, 1.12 * max(counts) or 1)
        return [
            Point(number, height, f"{label}: {number}; {unit}: {height:,}")
            for number, height in enumerate(counts)
        ]

    return half(name, title, caption, draw)


def loss_by_step(
    name: str,
    title: str,
    caption: str,
    steps: Sequence[int],
    losses: Sequence[float],
    smoothed: Sequence[float],
    epoch_ends: Sequence[float],
) -> Plot:
    """Loss at each optimizer step with its running mean; dotted lines mark the ends of epochs."""

    def draw(axes: Axes, narrow: bool) -> list[Point]:
        axes.plot(steps, losses, color=MUTED, linewidth=0.7, alpha=0.6, label="each step")
        axes.plot(steps, smoothed, color=AFTER, label="running mean")
        for end in epoch_ends:
            axes.axvline(end, color=MUTED, linewidth=1, linestyle=":")
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("optimizer step (dotted: end of an epoch)")
        axes.set_ylabel("loss (nats)")
        axes.set_xlim(min(steps), max(max(steps), min(steps) + 1))
        axes.set_ylim(bottom=0)
        legend(axes, PHONE if narrow else WIDE)
        return [
            Point(step, mean, f"step {step}: {decimal(loss)} nats, running mean {decimal(mean)}")
            for step, loss, mean in some([*zip(steps, losses, smoothed, strict=True)])
        ]

    return wide(name, title, caption, draw, HEIGHT, HEIGHT, CURVES)


def difference_chart(
    name: str, title: str, caption: str, differences: Sequence[Difference]
) -> Plot:
    """Changes with their intervals, one row each, the first at the top; a line marks 0."""

    def draw(axes: Axes, narrow: bool) -> list[Point]:
        axes.axvline(0, color=INK, linewidth=1)
        for row, one in enumerate(reversed(differences)):
            _draw_interval(axes, row, one.bounds, AFTER, alpha=0.45)
            fill = AFTER if one.is_significant else SURFACE
            axes.plot([one.value], [row], "o", color=AFTER, mfc=fill, ms=8, mew=1.6, zorder=3)
        named_rows(axes, [one.name for one in differences], narrow)
        axes.xaxis.set_major_formatter(lambda value, _: tick(value, "+") if value else "0")
        axes.set_xlabel("change in accuracy (points)")
        last = len(differences) - 1
        return [
            Point(
                one.value,
                last - row,
                f"{one.name}: {points(one.value)} ({points_interval(one.bounds)})",
            )
            for row, one in enumerate(differences)
        ]

    rows = len(differences)
    return wide(name, title, caption, draw, 0.6 + 0.3 * rows, 0.6 + 0.56 * rows, NAMED_ROWS)


def trade_chart(name: str, title: str, caption: str, trades: Sequence[Trade]) -> Plot:
    """Gain over loss, a point for each training with both intervals; lines mark no change."""

    def draw(axes: Axes, _: bool) -> list[Point]:
        axes.axhline(0, color=INK, linewidth=1)
        axes.axvline(0, color=INK, linewidth=1)
        for one in trades:
            bounds = one.loss_bounds or Interval(one.loss, one.loss)
            _draw_interval(axes, one.gain, bounds, AFTER, alpha=0.45)
            ends = (one.gain_bounds.low, one.gain_bounds.high)
            axes.plot([one.loss, one.loss], ends, color=AFTER, linewidth=2.5, alpha=0.45)
            fill = AFTER if one.is_kept else SURFACE
            axes.plot([one.loss], [one.gain], "o", color=AFTER, mfc=fill, ms=8, mew=1.6, zorder=3)
        axes.yaxis.set_major_formatter(lambda value, _: tick(value, "+") if value else "0")
        axes.xaxis.set_major_formatter(lambda value, _: f"{round(value, 6):+g}" if value else "0")
        axes.locator_params(axis="x", nbins=5)  # with more, their texts touch each other
        axes.set_xlabel("change of the loss on general text (nats a token)")
        axes.set_ylabel("gain in accuracy (points)")
        return [
            Point(
                one.loss,
                one.gain,
                f"loss {signed(one.loss, 4)} nats a token, accuracy {points(one.gain)} "
                f"({points_interval(one.gain_bounds)})",
            )
            for one in trades
        ]

    return half(name, title, caption, draw, 3.2)


def reliability(name: str, title: str, caption: str, models: Sequence[Reliability]) -> Plot:
    """Reliability diagram: share of correct answers over their mean probability, with intervals."""

    def draw(axes: Axes, _: bool) -> list[Point]:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":", label="calibrated")
        for model in models:
            for x, bounds in zip(model.confidence, model.bounds, strict=True):
                axes.plot(
                    [x, x], [bounds.low, bounds.high], color=model.colour, linewidth=2, alpha=0.45
                )
            axes.plot(
                model.confidence,
                model.accuracy,
                color=model.colour,
                marker=model.marker,
                linewidth=1.2,
                label=model.label,
            )
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("probability of the answer")
        axes.set_ylabel("correct answers")
        percent_axis(axes.xaxis)
        percent_axis(axes.yaxis)
        legend(axes)
        return [
            Point(x, y, f"{one.label}, probability {percent(x)}: {percent(y)} ({interval(own)})")
            for one in models
            for x, y, own in zip(one.confidence, one.accuracy, one.bounds, strict=True)
        ]

    return half(name, title, caption, draw, 3.4)


def over_time(
    name: str,
    title: str,
    caption: str,
    lines: Sequence[Line],
    spans: Sequence[Span],
    unit: str,
    top: float | None = None,
) -> Plot:
    """Lines over the job time in seconds, with the stages named along the top.

    The time axis of all charts of a job has the same place and the same scale.
    """
    end = max(span.end for span in spans) if spans else max(max(x.times) for x in lines)
    scale, time_unit = _time_unit(end)

    def draw(axes: Axes, _: bool) -> list[Point]:
        for number, span in enumerate(spans):
            _draw_span(axes, span, scale, end, shaded=number % 2 == 0)
        for line in lines:
            values = [float("nan") if value is None else value for value in line.values]
            times = [time / scale for time in line.times]
            axes.plot(times, values, color=line.colour, linewidth=1.5, label=line.label)
        axes.set_xlim(0, max(end / scale, 1e-9))
        axes.set_ylim(0, top)
        if top is None:
            axes.set_ylim(0, axes.get_ylim()[1] * 1.12)
        axes.set_xlabel(f"job time ({time_unit})")
        axes.set_ylabel(unit)
        if len(lines) > 1:
            legend(axes, above=ABOVE_STAGES)
        return [
            Point(
                time / scale,
                value,
                f"{line.label} at {decimal(time / scale)} {time_unit}: {decimal(value)} {unit}",
            )
            for line in lines
            for time, value in some(_measured(line))
        ]

    above = ONE_LINE if len(lines) == 1 else ONE_LINE + 0.35
    return half(name, title, caption, draw, margins=(*TIME, above))


# ---------------------------------------------------------------- pieces


def _draw_curve(axes: Axes, curve: Curve) -> None:
    """One training among others: thin, and thicker where its adapter is kept."""
    style: dict[str, Any] = {"linewidth": 0.9, "color": MUTED, "alpha": 0.7, "marker": "."}
    if curve.kept:
        style |= {"linewidth": 1.6, "color": TEST, "alpha": 1, "linestyle": "-."}
        style |= {"label": "adapter kept"}
    axes.plot([*curve.values], [*curve.values.values()], **style)


def mean_curve(curves: Sequence[Curve]) -> dict[int, float]:
    """Epoch -> mean over the curves, for the epochs that all have."""
    shared = [epoch for epoch in curves[0].values if all(epoch in one.values for one in curves)]
    return {epoch: fmean(one.values[epoch] for one in curves) for epoch in shared}


def _draw_change(axes: Axes, row: int, change: Change) -> list[Point]:
    """Both sides of a change; without intervals, a dotted line joins them."""
    sides = (
        ("before", change.before, change.before_interval, BEFORE, "s", 0.16),
        ("after", change.after, change.after_interval, AFTER, "o", -0.16),
    )
    if change.before is not None and change.after is not None and not change.after_interval:
        ends = [change.before, change.after]
        axes.plot(ends, [row, row], color=MUTED, linewidth=1.2, linestyle=":", zorder=1)
    found = []
    for side, value, bounds, colour, marker, lift in sides:
        if value is None:
            continue
        height = row + (lift if bounds else 0)
        if bounds:
            _draw_interval(axes, height, bounds, colour, alpha=0.55)
        axes.plot([value], [height], marker, color=colour, ms=8, mec=SURFACE, mew=1.2, zorder=3)
        found.append(Point(value, height, f"{change.name}, {side}: {with_interval(value, bounds)}"))
    return found


def _draw_interval(axes: Axes, height: float, bounds: Interval, colour: str, alpha: float) -> None:
    ends = (bounds.low, bounds.high)
    axes.plot(ends, [height, height], color=colour, linewidth=2.5, alpha=alpha)


def _draw_test(
    axes: Axes, epochs: Sequence[int], test: Sequence[float | None], base: float
) -> None:
    known = [(epoch, value) for epoch, value in zip(epochs, test, strict=True) if value is not None]
    if known:
        xs, ys = zip((0, base), *known, strict=True)
        style: dict[str, Any] = {"linestyle": "--", "linewidth": 1.3, "marker": "^", "ms": 5}
        axes.plot(xs, ys, color=TEST, label="test, for information", **style)


def _draw_span(axes: Axes, span: Span, scale: float, end: float, shaded: bool) -> None:
    if shaded:
        axes.axvspan(span.start / scale, span.end / scale, color=BAND, linewidth=0, zorder=0)
    # A name needs some space; short stages are found in the time table.
    if span.end - span.start > 0.019 * end * len(span.label):
        axes.text(
            (span.start + span.end) / 2 / scale,
            1.02,
            span.label,
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            color=MUTED,
        )


def _epoch(number: int) -> str:
    return f"epoch {number}" if number else "base model"


def _measured(line: Line) -> list[tuple[float, float]]:
    pairs = zip(line.times, line.values, strict=True)
    return [(time, value) for time, value in pairs if value is not None]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _time_unit(end: float) -> tuple[float, str]:
    if end < 300:
        return 1, "s"
    return (60, "min") if end < 3 * 3600 else (3600, "h")
