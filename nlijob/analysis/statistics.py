"""The statistics behind the report's intervals and its one test."""

from __future__ import annotations

import math

from nlijob.records import Interval

Z_95 = 1.959963984540054
"""The standard normal's 97.5 % point."""


def wilson_interval(correct: int, rows: int, z: float = Z_95) -> Interval:
    """The score interval of a share, `correct` of `rows`, at 95 % by default.

    Wilson (1927), Probable inference, the law of succession, and statistical inference. Raises
    ValueError on no rows or on counts that are no share.
    """
    if rows <= 0 or not 0 <= correct <= rows:
        raise ValueError(f"{correct} of {rows} is no share")
    share = correct / rows
    scale = 1 + z * z / rows
    centre = (share + z * z / (2 * rows)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    # At the ends the bound is exactly 0 or 1; floating point would leave a speck.
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == rows else min(1.0, centre + half)
    return Interval(low, high)


def mcnemar_p(corrected: int, broken: int) -> float:
    """Two-sided p of the exact McNemar test, from the rows on which exactly one model is right.

    Under no difference each such row is equally likely to fall either way, so the smaller count
    follows a binomial with share 1/2 (McNemar, 1947; exact form). 1.0 where no row differs.
    """
    discordant = corrected + broken
    tail = sum(math.comb(discordant, k) for k in range(min(corrected, broken) + 1))
    # Whole numbers up to here, so that large counts neither overflow nor lose their small tail.
    return min(1.0, 2 * tail / (1 << discordant))


def paired_difference_interval(corrected: int, broken: int, rows: int, z: float = Z_95) -> Interval:
    """The 95 % interval of the difference of two accuracies on the same rows (-1 to 1).

    The Wald interval after half a row was added to each of the four cells of the paired table:
    Agresti and Min (2005), Simple improved confidence intervals for comparing matched
    proportions. Raises ValueError on no rows or on counts that do not fit in them.
    """
    if rows <= 0 or min(corrected, broken) < 0 or corrected + broken > rows:
        raise ValueError(f"{corrected} and {broken} rows of {rows} do not fit")
    gained, lost, size = corrected + 0.5, broken + 0.5, rows + 2
    centre = (gained - lost) / size
    half = z * math.sqrt(gained + lost - (gained - lost) ** 2 / size) / size
    return Interval(max(-1.0, centre - half), min(1.0, centre + half))
