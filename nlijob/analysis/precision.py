"""The uncertainty of the figures in plain words: the range of the gain, and the use of more rows.

Bounds of the gain are rounded outwards, so that a sentence never claims more than the interval.
"""

from __future__ import annotations

import math

from nlijob.analysis.wording import count, plural
from nlijob.records.outcome import SIGNIFICANT, Interval, Narrowing

SPECK = 1e-9
"""Largest floating-point error on a whole number of points."""


def plain_gain(rows: int, bounds: Interval, p: float) -> str:
    """A sentence on the range of the gain in test accuracy, from its 95 % interval and McNemar's p.

    If the test is not significant (p of 0.05 or more), the range always includes no change, even
    if the interval just excludes it. Raises ValueError if there are no rows.
    """
    if rows <= 0:
        raise ValueError("no rows")
    low, high = bounds.low, bounds.high
    if p >= SIGNIFICANT:
        low, high = min(low, 0.0), max(high, 0.0)
    start = f"With {plural(rows, 'test row')},"
    end = "(95 % interval)."
    if low > 0:
        return f"{start} the gain could be anything from {_span(low, high)} {end}"
    if high < 0:
        return f"{start} the loss could be anything from {_span(-high, -low)} {end}"
    worst = f"a loss of {plural(_up(-low), 'point')}" if low < 0 else "no change"
    best = f"a gain of {plural(_up(high), 'point')}" if high > 0 else "no change"
    if worst == best:
        return f"{start} neither a gain nor a loss was found {end}"
    return f"{start} the change could be anything from {worst} to {best} {end}"


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
        f"±{_half(narrowing.gain_now)}."
    )


def _span(low: float, high: float) -> str:
    """A range of points; both bounds are above 0, the lower one first."""
    least = math.floor(100 * low + SPECK)
    return f"{least if least else 'just above 0'} to {plural(_up(high), 'point')}"


def _up(share: float) -> int:
    return math.ceil(100 * share - SPECK)


def _half(width: float) -> str:
    """Half of the width of an interval in points, at least 0.1."""
    return f"{max(0.1, 100 * width):.1f}"
