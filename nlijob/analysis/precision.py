"""How sure the figures are, in plain words: what the gain could be, and what more rows would do.

Bounds of the gain are rounded outwards, so that the sentence never claims more than the interval.
"""

from __future__ import annotations

import math

from nlijob.analysis.wording import count, plural
from nlijob.records import SIGNIFICANT, Interval, Narrowing

SPECK = 1e-9
"""What floating point may add to a whole number of points."""


def plain_gain(rows: int, bounds: Interval, p: float) -> str:
    """What the gain in test accuracy could be, from its 95 % interval and McNemar's p.

    Where the test does not tell the models apart (p of 0.05 or more) no change is always among
    what could be, even if the interval just leaves it out. Raises ValueError on no rows.
    """
    if rows <= 0:
        raise ValueError("no rows")
    low, high = bounds.low, bounds.high
    if p >= SIGNIFICANT:
        low, high = min(low, 0.0), max(high, 0.0)
    start = f"With {plural(rows, 'test row')}"
    end = "(95 % interval)."
    if low > 0:
        return f"{start} the gain could be anything from {_span(low, high)} {end}"
    if high < 0:
        return f"{start} the loss could be anything from {_span(-high, -low)} {end}"
    worst = f"a loss of {_points(_up(-low))}" if low < 0 else "no change"
    best = f"a gain of {_points(_up(high))}" if high > 0 else "no change"
    if worst == best:
        return f"{start} neither a gain nor a loss shows {end}"
    return f"{start} the change could be anything from {worst} to {best} {end}"


def narrower_sentence(narrowing: Narrowing) -> str:
    """What all rows of the split would do to the intervals; empty where all were taken."""
    now, full = narrowing.rows_now, narrowing.rows_full
    if full <= now:
        return ""
    return (
        f"With all test rows (about {count(full)}) instead of {count(now)}, and the same shares, "
        f"the 95 % interval of the tuned accuracy would be about "
        f"±{_half(narrowing.accuracy_full)} points instead of ±{_half(narrowing.accuracy_now)}, "
        f"that of the gain about ±{_half(narrowing.gain_full)} instead of "
        f"±{_half(narrowing.gain_now)}."
    )


def _span(low: float, high: float) -> str:
    """Both above 0, low first."""
    least = math.floor(100 * low + SPECK)
    return f"{least if least else 'just above 0'} to {_points(_up(high))}"


def _up(share: float) -> int:
    return math.ceil(100 * share - SPECK)


def _points(number: int) -> str:
    return f"{number} point{'' if number == 1 else 's'}"


def _half(width: float) -> str:
    """In points; never none."""
    return f"{max(0.1, 100 * width):.1f}"
