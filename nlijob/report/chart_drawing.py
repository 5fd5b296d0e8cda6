"""What all charts share: sizes, colours, axes, legends, and how a drawing becomes SVG."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nlijob.report.chart_svg import UNITS_PER_INCH, Point, inline_svg

WIDE, HALF, PHONE, HEIGHT = 9.4, 4.9, 4.5, 2.7
"""Inches; 72 SVG units each. In the window of a phone, half a page is as wide as the page."""
Margins = tuple[float, float, float, float]
"""Inches left and right of a plot, below and above it."""
FONT_SIZE = {WIDE: 10.2, HALF: 11.0, PHONE: 11.0}
"""SVG units; at least 10 pixels in windows of 390 pixels, and of 736 for the widest."""
LETTER, BESIDE = 0.52, 3.3
"""Mean width of a letter, and of the line and the gaps of an entry in a legend, in font sizes."""
MOST_POINTS = 40
"""Most values of a line that can be pointed at."""
LONGEST_NAME = 44
"""Letters of a name in a chart; the value that one points at has all of them."""

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
    "legend.fontsize": "medium",
    "axes.formatter.useoffset": False,
    "text.parse_math": False,  # label names are data: a dollar sign in one is a dollar sign
}


@dataclass(frozen=True)
class Plot:
    """A chart with its caption, which is also its description for screen readers."""

    svg: str
    caption: str
    narrow: str = ""
    """The same chart for phones; "" where the one drawing serves all windows."""


T = TypeVar("T")
Draw = Callable[[Axes, bool], Sequence[Point]]
"""Draws a chart, in its form for phones if so asked; returns the values to point at."""


def named_rows(axes: Axes, names: Sequence[str], narrow: bool) -> None:
    """Name the rows of a chart, the first at the top; each name above its row if `narrow`."""
    shown = [_short(name) for name in reversed(names)]
    axes.grid(visible=False, axis="y")
    if not narrow:
        axes.set_yticks(range(len(names)), shown)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(-0.6, len(names) - 0.4)
        return
    axes.set_yticks([])
    for row, name in enumerate(shown):
        axes.text(0, row + 0.32, name, transform=axes.get_yaxis_transform(), color=INK)
    axes.set_ylim(-0.45, len(names) - 0.3)


def legend(axes: Axes, width: float = HALF, above: float = 1.0) -> None:
    """A legend whose lower edge is at this height of the plot, in as many columns as fit."""
    lengths = [len(label) for label in axes.get_legend_handles_labels()[1]]
    room = 0.9 * width * UNITS_PER_INCH / FONT_SIZE[width]
    columns = next(
        n for n in range(len(lengths), 0, -1) if n == 1 or _legend_width(lengths, n) < room
    )
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, above)}
    axes.legend(**place, ncols=columns, handlelength=1.6, handletextpad=0.5, columnspacing=1.2)


def _legend_width(lengths: Sequence[int], columns: int) -> float:
    """Width of a legend in font sizes; entries go down one column after the other."""
    rows, longer = divmod(len(lengths), columns)
    ends = [*accumulate(rows + (column < longer) for column in range(columns))]
    longest = [max(lengths[start:end]) for start, end in pairwise([0, *ends])]
    return sum(LETTER * one + BESIDE for one in longest)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def some(items: Sequence[T]) -> Sequence[T]:
    """At most `MOST_POINTS` of them, evenly spread, the last among them."""
    every = -(-len(items) // MOST_POINTS) or 1
    return items[::-1][::every][::-1]


def percent_axis(axis: Any) -> None:
    """Write the ticks of an axis of shares in percent."""
    axis.set_major_formatter(lambda value, _: f"{tick(value)} %")


def tick(share: float, sign: str = "") -> str:
    """A share in percent for an axis, with the decimals that it has."""
    return f"{round(100 * share, 6):{sign}g}"


def floor(values: Sequence[float]) -> float:
    """Lower end of an axis of shares: 0, unless all values are well above it."""
    lowest = min(values)
    return 0.0 if lowest < 0.3 else int(10 * (lowest - 0.1)) / 10


def half(
    name: str,
    title: str,
    caption: str,
    draw: Draw,
    height: float = HEIGHT,
    margins: Margins | None = None,
) -> Plot:
    """A chart of half a page's width, which is also right for a phone."""
    return Plot(_drawn(name, title, caption, draw, (HALF, height), margins), caption)


def wide(
    name: str, title: str, caption: str, draw: Draw, height: float, narrow: float, margins: Margins
) -> Plot:
    """A chart of a page's width, and its form for phones with a height and margins of its own."""
    svg = _drawn(name, title, caption, draw, (WIDE, height), None)
    small = _drawn(f"{name}-narrow", title, caption, draw, (PHONE, narrow), margins)
    return Plot(svg, caption, small)


def _drawn(
    name: str,
    title: str,
    caption: str,
    draw: Draw,
    size: tuple[float, float],
    margins: Margins | None,
) -> str:
    """The SVG of a drawing of this size in inches; without margins, they are as wide as needed."""
    width, height = size
    style = {**STYLE, "font.size": FONT_SIZE[width], "svg.hashsalt": name}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # The browser draws the text, so glyphs missing from matplotlib's font do not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size, layout=None if margins else "constrained")
        axes = figure.add_subplot()
        if margins:
            left, right, bottom, top = margins
            place = (left / width, bottom / height)
            axes.set_position((*place, 1 - (left + right) / width, 1 - (bottom + top) / height))
        values = draw(axes, width == PHONE)
        return inline_svg(figure, axes, name, title, caption, CSS_VARIABLES, values)
