"""The statistics behind the report's intervals and tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nlijob.records.intervals import Interval
from nlijob.records.outcome import Narrowing

Z_95 = 1.959963984540054
"""The standard normal's 97.5 % point."""
T_95 = {1: 12.706205, 2: 4.302653, 3: 3.182446}
"""Student's 97.5 % points with so few degrees of freedom that their expansion is inexact."""


def wilson_interval(correct: int, rows: int, effective: float | None = None) -> Interval:
    """Wilson score interval of the share `correct` / `rows`, at 95 %.

    Wilson (1927), Probable inference, the law of succession, and statistical inference. `effective`
    is the number of independent rows that the rows are worth, if they are not independent. Raises
    ValueError if there are no rows or if `correct` is not between 0 and `rows`.
    """
    if rows <= 0 or not 0 <= correct <= rows:
        raise ValueError(f"{correct} of {rows} is not a share")
    centre, half = _wilson(correct / rows, effective or rows)
    # At the ends the bound is exactly 0 or 1; floating point would miss it slightly.
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == rows else min(1.0, centre + half)
    return Interval(low, high)


def mcnemar_p(corrected: int, broken: int) -> float:
    """Two-sided p of the exact McNemar test, from the rows on which exactly one model is correct.

    If the models are equally good, each such row is equally likely to favour either of them, so
    the counts follow a binomial distribution with p = 1/2: McNemar (1947), Note on the sampling
    error of the difference between correlated proportions or percentages; exact form. Returns 1.0
    if there is no such row.
    """
    discordant = corrected + broken
    tail, ways = 0, 1
    for k in range(min(corrected, broken) + 1):
        tail += ways
        ways = ways * (discordant - k) // (k + 1)  # rows choose k + 1
    # Integers up to here, so that large counts neither overflow nor lose a small tail.
    return min(1.0, 2 * tail / (1 << discordant))


def paired_difference_interval(
    corrected: int, broken: int, rows: int, effective: float | None = None
) -> Interval:
    """95 % interval of the difference of two accuracies on the same rows (-1 to 1).

    Wald interval after adding half a row to each of the four cells of the paired table: Agresti and
    Min (2005), Simple improved confidence intervals for comparing matched proportions. `effective`
    is as in `wilson_interval`. Raises ValueError if there are no rows or if the counts exceed them.
    """
    if rows <= 0 or min(corrected, broken) < 0 or corrected + broken > rows:
        raise ValueError(f"{corrected} and {broken} rows of {rows} do not fit")
    worth = (effective or rows) / rows
    centre, half = _paired(corrected * worth, broken * worth, rows * worth)
    return Interval(max(-1.0, centre - half), min(1.0, centre + half))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P-values adjusted for multiple testing, in the order given.

    If adjusted p-values below 0.05 count as significant, the probability of any false finding is at
    most 5 %, however the tests depend on each other: Holm (1979), A simple sequentially rejective
    multiple test procedure.
    """
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    ranked = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, position in enumerate(ranked):
        highest = max(highest, (len(ranked) - rank) * p_values[position])
        adjusted[position] = min(1.0, highest)
    return tuple(adjusted)


def narrower(
    correct: int,
    corrected: int,
    broken: int,
    rows: int,
    rows_full: int,
    effective: tuple[float, float] | None = None,
) -> Narrowing:
    """Half-widths of the intervals of tuned accuracy and gain, now and expected with `rows_full`.

    The projection assumes the same shares as on `rows`, and that premises are shared as much;
    `correct` is the tuned model's number of correct rows, `effective` the effective rows of
    accuracy and of the gain. Half-widths are those of the Wilson interval and of the interval of
    the paired difference, before they are clipped to the possible range. Raises ValueError if the
    counts exceed `rows`, or if `rows_full` is less than `rows`.
    """
    if rows <= 0 or not 0 <= correct <= rows or rows_full < rows:
        raise ValueError(f"{correct} of {rows} rows, {rows_full} in full: they do not fit")
    if min(corrected, broken) < 0 or corrected + broken > rows:
        raise ValueError(f"{corrected} and {broken} rows of {rows} do not fit")
    times = rows_full / rows
    of_accuracy, of_gain = effective or (rows, rows)
    worth = of_gain / rows
    return Narrowing(
        rows_now=rows,
        rows_full=rows_full,
        accuracy_now=_wilson(correct / rows, of_accuracy)[1],
        accuracy_full=_wilson(correct / rows, of_accuracy * times)[1],
        gain_now=_paired(corrected * worth, broken * worth, of_gain)[1],
        gain_full=_paired(corrected * worth * times, broken * worth * times, of_gain * times)[1],
    )


def t_95(freedom: int) -> float:
    """97.5 % point of Student's t with this many degrees of freedom (1 or more).

    From four degrees on, the expansion around the normal's point: Abramowitz and Stegun (1964),
    Handbook of Mathematical Functions, 26.7.5; its error is below 0.1 %.
    """
    if freedom in T_95:
        return T_95[freedom]
    z, square = Z_95, Z_95 * Z_95
    terms = (
        (square + 1) / 4,
        ((5 * square + 16) * square + 3) / 96,
        (((3 * square + 19) * square + 17) * square - 15) / 384,
        ((((79 * square + 776) * square + 1482) * square - 1920) * square - 945) / 92160,
    )
    return z + sum(z * term / math.pow(freedom, power) for power, term in enumerate(terms, 1))


def t_tail(freedom: int, point: float) -> float:
    """Chance that |t| exceeds `point` (0 or more), for Student's t with 1 or more whole degrees.

    The finite sums of Abramowitz and Stegun (1964), Handbook of Mathematical Functions, 26.7.3 and
    26.7.4; the error is below 1e-12.
    """
    angle = math.atan2(point, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    if freedom % 2:
        term, total = cosine, 0.0
        for step in range(1, freedom - 1, 2):
            total += term
            term *= cosine * cosine * (step + 1) / (step + 2)
        return 1 - 2 / math.pi * (angle + sine * total)
    term, total = 1.0, 0.0
    for step in range(0, freedom, 2):
        total += term
        term *= cosine * cosine * (step + 1) / (step + 2)
    return 1 - sine * total


def t_point(freedom: int, chance: float) -> float:
    """The point that |t| exceeds with this chance (1e-9 to 1), to nine digits."""
    low, high = 0.0, 1.0
    while t_tail(freedom, high) > chance:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(freedom, middle) > chance else (low, middle)
    return (low + high) / 2


def _wilson(share: float, rows: float) -> tuple[float, float]:
    """Centre and half-width of the Wilson interval."""
    scale = 1 + Z_95 * Z_95 / rows
    centre = (share + Z_95 * Z_95 / (2 * rows)) / scale
    variance = share * (1 - share) / rows + Z_95 * Z_95 / (4 * rows * rows)
    return centre, Z_95 / scale * math.sqrt(variance)


def _paired(corrected: float, broken: float, rows: float) -> tuple[float, float]:
    """Centre and half-width of the interval of the paired difference."""
    gained, lost, size = corrected + 0.5, broken + 0.5, rows + 2
    spread = math.sqrt(gained + lost - (gained - lost) ** 2 / size)
    return (gained - lost) / size, Z_95 * spread / size
