"""Charts as inline SVG text, drawn with matplotlib's object-oriented interface.

Colours are CSS variables of the page, so that charts follow the light and dark themes. Text stays
text. Element ids start with the name of the chart, so that a page can hold several charts. The
same data always give the same bytes.
"""

from __future__ import annotations

import contextlib
import datetime
import html
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import matplotlib
import matplotlib.dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nlijob.printable import printable
from nlijob.records.intervals import Interval

WIDE, HALF, HEIGHT = 10.4, 5.2, 2.7
"""Inches; 72 SVG units each."""
MOST_NUMBERED = 12
"""Bars of a chart that have their counts above them; more would cover each other."""
ABOVE_STAGES = 1.07
"""Height of a legend above the names of the stages, in heights of the plot."""
MANY_RUNS = 40
"""A trend with more points than this has small markers."""
DATES: Any = matplotlib.dates  # has no type annotations

# matplotlib needs real colours; each of these is later replaced by a CSS variable.
INK, MUTED, GRID, SURFACE = "#010101", "#010102", "#010103", "#010104"
BEFORE, AFTER, TEST, ACCENT, BAND = "#010105", "#010106", "#010107", "#010108", "#010109"
CSS_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    SURFACE: "var(--surface)",
    BEFORE: "var(--before)",
    AFTER: "var(--after)",
    TEST: "var(--test)",
    ACCENT: "var(--accent)",
    BAND: "var(--band)",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "axes.formatter.useoffset": False,
    "text.parse_math": False,  # label names are data: a dollar sign in one is a dollar sign
}

SELECTED: dict[str, Any] = {
    **{"linestyle": "none", "marker": "o", "ms": 8},
    **{"mfc": "none", "mec": ACCENT, "mew": 1.4},
}
"""The ring around the figure of a selected epoch."""


@dataclass(frozen=True)
class Plot:
    """A chart with its caption, which is also its description for screen readers."""

    svg: str
    caption: str


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
    with _figure(name, WIDE, 0.5 + 0.4 * len(changes)) as (figure, axes):
        for row, change in enumerate(reversed(changes)):
            _draw_change(axes, row, change)
        _named_rows(axes, [change.name for change in changes])
        axes.set_xlim(0, 1)
        _percent_axis(axes.xaxis)
        return _plot(figure, name, title, caption)


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
    with _figure(name) as (figure, axes):
        low, high = [one.low for one in bounds], [one.high for one in bounds]
        axes.fill_between(
            epochs, low, high, color=BAND, linewidth=0, label="validation, 95 % interval"
        )
        base = [] if base_validation is None else [base_validation]
        xs = [0, *epochs] if base else list(epochs)
        axes.plot(xs, [*base, *validation], color=AFTER, marker="o", label="validation")
        _draw_test(axes, epochs, test, base_test)
        chosen = validation[list(epochs).index(selected)]
        axes.plot([selected], [chosen], "o", ms=13, mfc="none", mec=ACCENT, mew=2, label="selected")
        axes.set_xticks([0, *epochs], ["base", *map(str, epochs)])
        axes.set_xlabel("epoch")
        axes.set_ylim(_floor([*low, *base, base_test, *_known(test)]), 1.0)
        _percent_axis(axes.yaxis)
        _legend(axes)
        return _plot(figure, name, title, caption)


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
    with _figure(name) as (figure, axes):
        axes.plot(epochs, train, color=BEFORE, marker="s", label="training")
        axes.plot(epochs, validation, color=AFTER, marker="o", label="validation")
        axes.axvline(selected, color=ACCENT, linewidth=1.2, linestyle=":", label="selected")
        axes.set_xticks(list(epochs))
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss (nats)")
        axes.set_ylim(bottom=0)
        _legend(axes)
        return _plot(figure, name, title, caption)


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
    with _figure(name) as (figure, axes):
        for curve in curves:
            _draw_curve(axes, curve)
        mean = mean_curve(curves)
        axes.plot([*mean], [*mean.values()], color=AFTER, linewidth=2.6, marker="o", label="mean")
        chosen = [(curve.selected, curve.values[curve.selected]) for curve in curves]
        axes.plot(*zip(*chosen, strict=True), **SELECTED, label="selected")
        axes.set_xticks([*mean])
        axes.set_xlabel("epoch")
        if unit:
            axes.set_ylabel(unit)
            axes.set_ylim(bottom=0)
        else:
            known = [value for curve in curves for value in curve.values.values()]
            axes.set_ylim(_floor(known), 1.0)
            _percent_axis(axes.yaxis)
        _legend(axes)
        return _plot(figure, name, title, caption)


def counts_chart(
    name: str, title: str, caption: str, counts: Sequence[int], label: str, unit: str
) -> Plot:
    """Bars of counts; the first bar is of 0, the next of 1, and so on."""
    with _figure(name) as (figure, axes):
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
        return _plot(figure, name, title, caption)


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
    with _figure(name, WIDE) as (figure, axes):
        axes.plot(steps, losses, color=MUTED, linewidth=0.7, alpha=0.6, label="each step")
        axes.plot(steps, smoothed, color=AFTER, label="running mean")
        for end in epoch_ends:
            axes.axvline(end, color=MUTED, linewidth=1, linestyle=":")
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("optimizer step (dotted: end of an epoch)")
        axes.set_ylabel("loss (nats)")
        axes.set_xlim(min(steps), max(max(steps), min(steps) + 1))
        axes.set_ylim(bottom=0)
        _legend(axes)
        return _plot(figure, name, title, caption)


def difference_chart(
    name: str, title: str, caption: str, differences: Sequence[Difference]
) -> Plot:
    """Changes with their intervals, one row each, the first at the top; a line marks 0."""
    with _figure(name, WIDE, 0.6 + 0.3 * len(differences)) as (figure, axes):
        axes.axvline(0, color=INK, linewidth=1)
        for row, one in enumerate(reversed(differences)):
            _draw_interval(axes, row, one.bounds, AFTER, alpha=0.45)
            fill = AFTER if one.is_significant else SURFACE
            axes.plot([one.value], [row], "o", color=AFTER, mfc=fill, ms=8, mew=1.6, zorder=3)
        _named_rows(axes, [one.name for one in differences])
        axes.xaxis.set_major_formatter(lambda value, _: _tick(value, "+") if value else "0")
        axes.set_xlabel("change in accuracy (points)")
        return _plot(figure, name, title, caption)


def trade_chart(name: str, title: str, caption: str, trades: Sequence[Trade]) -> Plot:
    """Gain over loss, a point for each training with both intervals; lines mark no change."""
    with _figure(name, HALF, 3.2) as (figure, axes):
        axes.axhline(0, color=INK, linewidth=1)
        axes.axvline(0, color=INK, linewidth=1)
        for one in trades:
            bounds = one.loss_bounds or Interval(one.loss, one.loss)
            _draw_interval(axes, one.gain, bounds, AFTER, alpha=0.45)
            ends = (one.gain_bounds.low, one.gain_bounds.high)
            axes.plot([one.loss, one.loss], ends, color=AFTER, linewidth=2.5, alpha=0.45)
            fill = AFTER if one.is_kept else SURFACE
            axes.plot([one.loss], [one.gain], "o", color=AFTER, mfc=fill, ms=8, mew=1.6, zorder=3)
        axes.yaxis.set_major_formatter(lambda value, _: _tick(value, "+") if value else "0")
        axes.xaxis.set_major_formatter(lambda value, _: f"{round(value, 6):+g}" if value else "0")
        axes.set_xlabel("change of the loss on general text (nats a token)")
        axes.set_ylabel("gain in accuracy (points)")
        return _plot(figure, name, title, caption)


def reliability(name: str, title: str, caption: str, models: Sequence[Reliability]) -> Plot:
    """Reliability diagram: share of correct answers over their mean probability, with intervals."""
    with _figure(name, height=3.4) as (figure, axes):
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
        _percent_axis(axes.xaxis)
        _percent_axis(axes.yaxis)
        _legend(axes)
        return _plot(figure, name, title, caption)


def over_time(
    name: str,
    title: str,
    caption: str,
    lines: Sequence[Line],
    spans: Sequence[Span],
    unit: str,
    top: float | None = None,
) -> Plot:
    """Lines over the job time in seconds, with the stages named along the top."""
    with _figure(name) as (figure, axes):
        end = max(span.end for span in spans) if spans else max(max(x.times) for x in lines)
        scale, time_unit = _time_unit(end)
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
            _legend(axes, ABOVE_STAGES, len(lines))
        return _plot(figure, name, title, caption)


def trend(
    name: str,
    title: str,
    caption: str,
    moments: Sequence[datetime.datetime],
    before: Sequence[float],
    after: Sequence[float],
    bounds: Sequence[Interval],
) -> Plot:
    """Accuracy of runs by start time, the oldest first."""
    with _figure(name, WIDE, 3.0) as (figure, axes):
        times = DATES.date2num(moments)
        low, high = [one.low for one in bounds], [one.high for one in bounds]
        size = 6 if len(moments) <= MANY_RUNS else 3
        axes.fill_between(times, low, high, color=BAND, linewidth=0, label="after, 95 % interval")
        axes.plot(times, after, color=AFTER, marker="o", ms=size, label="after tuning")
        axes.plot(times, before, color=BEFORE, marker="s", ms=size, lw=1.2, label="before")
        _date_axis(axes, times, most_ticks=9)
        axes.set_ylim(_floor([*low, *before]), 1.0)
        _percent_axis(axes.yaxis)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, handlelength=1.6)
        return _plot(figure, name, title, caption)


def amount_trend(
    name: str,
    title: str,
    caption: str,
    moments: Sequence[datetime.datetime],
    values: Sequence[float],
    unit: str,
) -> Plot:
    """An amount per run, such as its time, by start time, the oldest first; starts at 0."""
    with _figure(name) as (figure, axes):
        times = DATES.date2num(moments)
        size = 6 if len(moments) <= MANY_RUNS else 3
        axes.plot(times, values, color=AFTER, marker="o", ms=size, lw=1.2)
        _date_axis(axes, times, most_ticks=6)
        axes.set_ylim(0, 1.12 * max(values) or 1)
        axes.set_ylabel(unit)
        return _plot(figure, name, title, caption)


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


def _draw_change(axes: Axes, row: int, change: Change) -> None:
    sides = (
        (change.before, change.before_interval, BEFORE, "s", 0.16),
        (change.after, change.after_interval, AFTER, "o", -0.16),
    )
    if change.before is not None and change.after is not None and not change.after_interval:
        axes.plot([change.before, change.after], [row, row], color=GRID, linewidth=3, zorder=1)
    for value, bounds, colour, marker, lift in sides:
        if value is None:
            continue
        height = row + (lift if bounds else 0)
        if bounds:
            _draw_interval(axes, height, bounds, colour, alpha=0.55)
        axes.plot([value], [height], marker, color=colour, ms=8, mec=SURFACE, mew=1.2, zorder=3)


def _draw_interval(axes: Axes, height: float, bounds: Interval, colour: str, alpha: float) -> None:
    ends = (bounds.low, bounds.high)
    axes.plot(ends, [height, height], color=colour, linewidth=2.5, alpha=alpha)


def _named_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a chart, the first at the top."""
    axes.set_yticks(range(len(names)), names[::-1])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(visible=False, axis="y")


def _draw_test(
    axes: Axes, epochs: Sequence[int], test: Sequence[float | None], base: float
) -> None:
    known = [(epoch, value) for epoch, value in zip(epochs, test, strict=True) if value is not None]
    if known:
        xs, ys = zip((0, base), *known, strict=True)
        style: dict[str, Any] = {"linestyle": "--", "linewidth": 1.3, "marker": "^", "ms": 5}
        axes.plot(xs, ys, color=TEST, label="test, for information only", **style)


def _draw_span(axes: Axes, span: Span, scale: float, end: float, shaded: bool) -> None:
    if shaded:
        axes.axvspan(span.start / scale, span.end / scale, color=BAND, linewidth=0, zorder=0)
    # A name needs some space; short stages are found in the time table.
    if span.end - span.start > 0.012 * end * len(span.label):
        axes.text(
            (span.start + span.end) / 2 / scale,
            1.02,
            span.label,
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=MUTED,
        )


def _legend(axes: Axes, above: float = 1.0, columns: int = 2) -> None:
    """A legend whose lower edge is at this height of the plot."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, above), ncols=columns, handlelength=1.6)


def _date_axis(axes: Axes, times: Any, most_ticks: int) -> None:
    """Format an axis of dates; `times` are in days, as matplotlib counts them."""
    if times[0] == times[-1]:  # a single moment: show the day around it
        axes.set_xlim(times[0] - 0.5, times[0] + 0.5)
    locator = DATES.AutoDateLocator(tz=datetime.UTC, minticks=2, maxticks=most_ticks)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(DATES.ConciseDateFormatter(locator, tz=datetime.UTC))


def _percent_axis(axis: Any) -> None:
    axis.set_major_formatter(lambda value, _: f"{_tick(value)} %")


def _tick(share: float, sign: str = "") -> str:
    """A share in percent for an axis, with the decimals that it has."""
    return f"{round(100 * share, 6):{sign}g}"


def _floor(values: Sequence[float]) -> float:
    """Lower end of an axis of shares: 0, unless all values are well above it."""
    lowest = min(values)
    return 0.0 if lowest < 0.3 else int(10 * (lowest - 0.1)) / 10


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _time_unit(end: float) -> tuple[float, str]:
    if end < 300:
        return 1, "s"
    return (60, "min") if end < 3 * 3600 else (3600, "h")


# ---------------------------------------------------------------- SVG


@contextlib.contextmanager
def _figure(
    name: str, width: float = HALF, height: float = HEIGHT
) -> Iterator[tuple[Figure, Axes]]:
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser draws the text, so glyphs missing from matplotlib's font do not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def _plot(figure: Figure, name: str, title: str, caption: str) -> Plot:
    buffer = io.StringIO()
    no_metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    return Plot(_inline(buffer.getvalue(), name, title, caption), caption)


def _inline(svg: str, name: str, title: str, caption: str) -> str:
    """An SVG adapted to the page: unique ids, page colours and fonts, accessible name."""
    svg = svg[svg.index("<svg") :]
    view_box = re.search(r'viewBox="([^"]*)"', svg)
    body = svg[svg.index(">") + 1 :]
    # A style element would apply to the whole page.
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    body = re.sub(r"font-family: [^;\"]*;?", "", body)
    body = re.sub(
        "(fill|stroke): (#0101[0-9a-f]{2})", lambda m: f"{m[1]}: {CSS_VARIABLES[m[2]]}", body
    )
    opening = (
        f'<svg class="chart" role="img" aria-labelledby="{name}-title {name}-text" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{view_box.group(1) if view_box else ""}">'
        f'<title id="{name}-title">{html.escape(title)}</title>'
        f'<desc id="{name}-text">{html.escape(caption)}</desc>'
    )
    return printable(opening + body.rstrip())
