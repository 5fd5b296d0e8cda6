"""The uncertainty of the figures in plain words: the range of the gain, and the use of more rows.

The bounds of the gain have the same decimals as in the table of figures.
"""

from __future__ import annotations

from nlijob.analysis.wording import count, plural, points_interval
from nlijob.records.intervals import Interval
from nlijob.records.outcome import SIGNIFICANT, Narrowing


def plain_gain(rows: int, bounds: Interval, p: float, premises: int | None = None) -> str:
    """A sentence on the range of the gain in test accuracy, from its 95 % interval and its test.

    `premises` is the number of premises if they are the units. If interval and test disagree about
    whether there is a change, the sentence says so. Raises ValueError if there are no rows.
    """
    if rows <= 0:
        raise ValueError("no rows")
    of = "" if premises is None else f" on {plural(premises, 'premise')}"
    start = f"With {plural(rows, 'test row')}{of},"
    end = f"(95 % interval){_disagreement(bounds, p)}."
    if bounds.low == bounds.high == 0:
        return f"{start} neither a gain nor a loss was found {end}"
    if bounds.low > 0:
        return f"{start} the gain could be anything from {_span(bounds.low, bounds.high)} {end}"
    if bounds.high < 0:
        return f"{start} the loss could be anything from {_span(-bounds.high, -bounds.low)} {end}"
    return f"{start} the change could be anything from {points_interval(bounds)} points {end}"


def narrower_sentence(narrowing: Narrowing) -> str:
    """A sentence on the intervals expected with all rows of the split; "" if all were used."""
    now, full = narrowing.rows_now, narrowing.rows_full
    if full <= now:
        return ""
    return (
        f"With all test rows (about {count(full)} instead of {count(now)}) and the same "
        f"proportions, the 95 % interval of the tuned accuracy would be about "
        f"±{_half(narrowing.accuracy_full)} points instead of ±{_half(narrowing.accuracy_now)}, "
        f"and that of the gain about ±{_half(narrowing.gain_full)} instead of "
        f"±{_half(narrowing.gain_now)}; they would be wider if more of those rows share a premise."
    )


def _disagreement(bounds: Interval, p: float) -> str:
    if p >= SIGNIFICANT and (bounds.low > 0 or bounds.high < 0):
        return ", but the test does not exclude that there is no change"
    if p < SIGNIFICANT and bounds.low <= 0 <= bounds.high:
        return "; the test finds a change that the interval does not, so it is borderline"
    return ""


def _span(low: float, high: float) -> str:
    """A range of points above 0, the lower bound first."""
    return f"{points_interval(Interval(low, high)).replace('+', '')} points"


def _half(width: float) -> str:
    """Half of the width of an interval in points, at least 0.1."""
    return f"{max(0.1, 100 * width):.1f}"
