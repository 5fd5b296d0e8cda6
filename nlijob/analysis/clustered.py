"""Intervals and tests for rows of which several may share a premise.

Rows with the same premise are not independent, so the premise is the unit: it is what was drawn at
random. Every function takes the premise number of each row. Where no premise repeats, the figures
are exactly those of `nlijob.analysis.statistics`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlijob.analysis.statistics import (
    Z_95,
    mcnemar_p,
    paired_difference_interval,
    t_95,
    wilson_interval,
)
from nlijob.records.intervals import Interval, PairedDifference

Array = NDArray[Any]
PSEUDO_PREMISES = 0.5
"""Premises added when the correlation within a premise is estimated, half of them with the highest
value in all rows and half with the lowest. Without them, a model that is correct on every row would
seem to have independent rows."""
FLIPS = 10_000
"""Random sign flips of a test whose exact distribution is out of reach."""
SEED = 20_260_713
SIGNS_AT_ONCE = 4_000_000
"""Most random signs in memory at a time."""


@dataclass(frozen=True)
class Estimate:
    """A mean over rows with its 95 % interval, before the interval is clipped to what can be."""

    centre: float
    half: float
    """Half of the interval's width."""
    effective: float
    """The number of independent rows that the rows are worth."""
    variance: float
    """Variance of the rows' values."""


def accuracy_interval(right: Sequence[bool], premises: Sequence[int]) -> Interval:
    """95 % interval of the share of correct rows: Wilson's, with the effective number of rows.

    Wilson intervals with the effective rows do well for clustered samples: Dean and Pagano (2015),
    Evaluating confidence interval methods for binomial proportions in clustered surveys. Raises
    ValueError if there are no rows.
    """
    return wilson_interval(sum(right), len(right), effective_rows(right, premises, (0, 1)))


def paired_difference(
    first: Sequence[bool], second: Sequence[bool], premises: Sequence[int]
) -> PairedDifference:
    """Difference in accuracy of two models on the same rows, from which rows each has right.

    The interval is that of the row-wise difference with the effective number of rows. The test is
    the exact sign-flip test over premises: if the models are equally good, exchanging them in any
    premise changes nothing (Fisher, 1935, The Design of Experiments, section 21). With one row a
    premise it is the exact McNemar test; it weighs premises as the clustered McNemar test of
    Obuchowski (1998), On the comparison of correlated proportions for clustered data. Raises
    ValueError if there are no rows.
    """
    change = np.asarray(first, dtype=np.int64) - np.asarray(second, dtype=np.int64)
    rows, gained, lost = len(change), int((change > 0).sum()), int((change < 0).sum())
    if not rows:
        raise ValueError("no rows to compare")
    effective = effective_rows(change, premises, (-1, 1))
    return PairedDifference(
        gained=gained,
        lost=lost,
        difference=(gained - lost) / rows,
        interval=paired_difference_interval(gained, lost, rows, effective),
        mcnemar_p=exact_p(change, premises),
        premises=premises_as_units(premises),
    )


def mean_share_interval(shares: Sequence[float], premises: Sequence[int]) -> Interval:
    """95 % interval of the mean of one share (0 to 1) for each row.

    Agresti and Coull (1998), Approximate is better than "exact" for interval estimation of binomial
    proportions, with the shares' own variance in the place of that of zeros and ones, and with the
    effective number of rows. Raises ValueError if there are no rows.
    """
    added = Z_95 * Z_95
    low, high = _mean_interval(shares, premises, (0, 1), added, added / 2, added / 2)
    return Interval(max(0.0, low), min(1.0, high))


def mean_share(shares: Sequence[float] | Array, premises: Sequence[int]) -> Estimate:
    """The mean of one share (0 to 1) for each row, such as the share of trainings that are right.

    It is Wilson's interval with the shares' own variance, so that it is that of `accuracy_interval`
    if all shares are 0 or 1. Raises ValueError if there are no rows.
    """
    value = np.asarray(shares, dtype=float)
    if not len(value):
        raise ValueError("no rows")
    rows, variance = effective_rows(value, premises, (0, 1)), float(value.var())
    return wilson_estimate(float(value.mean()), variance, rows)


def wilson_estimate(mean: float, variance: float, rows: float) -> Estimate:
    """Wilson's interval of a mean share, from so many independent rows with this variance."""
    added = Z_95 * Z_95
    half = Z_95 * math.sqrt(rows * variance + added / 4) / (rows + added)
    return Estimate((rows * mean + added / 2) / (rows + added), half, rows, variance)


def mean_difference(differences: Sequence[float] | Array, premises: Sequence[int]) -> Estimate:
    """The mean of one difference of two shares (-1 to 1) for each row.

    As in `mean_difference_interval`. Raises ValueError if there are no rows.
    """
    value = np.asarray(differences, dtype=float)
    low, high = _mean_interval(value, premises, (-1, 1), 2, 0, 1)
    rows = effective_rows(value, premises, (-1, 1))
    return Estimate((low + high) / 2, (high - low) / 2, rows, float(value.var()))


def mean_difference_interval(differences: Sequence[float], premises: Sequence[int]) -> Interval:
    """95 % interval of the mean of one difference of two shares (-1 to 1) for each row.

    As in `nlijob.analysis.statistics.paired_difference_interval`, which it is where all shares are
    0 or 1: half a row is added to each of the four cells. Raises ValueError if there are no rows.
    """
    low, high = _mean_interval(differences, premises, (-1, 1), 2, 0, 1)
    return Interval(max(-1.0, low), min(1.0, high))


def premises_as_units(premises: Sequence[int]) -> int | None:
    """The number of premises if they are the units; None if each row is one."""
    number = len({*premises})
    return None if number == len(premises) else number


def effective_rows(
    values: Sequence[float] | Array, premises: Sequence[int], bounds: tuple[float, float]
) -> float:
    """The number of independent rows whose mean would be as uncertain as that of these rows.

    It is the number of rows divided by the design effect (Kish, 1965, Survey Sampling): the
    variance of the mean over premises, linearised, relative to that over independent rows, and at
    least 1. As few premises estimate it badly, it is reduced by the ratio of the t quantiles of
    rows and premises: Korn and Graubard (1998), Confidence intervals for proportions with small
    expected number of positive counts estimated from survey data. `bounds` are the least and the
    greatest possible value. The result is from 1 to the number of rows.
    """
    rows, units = len(values), premises_as_units(premises)
    if units is None:
        return float(rows)
    if units == 1:
        return 1.0
    value = np.asarray(values, dtype=float)
    mean = float(value.mean())
    left = premise_sums(value, premises) - mean * premise_sums(np.ones(rows), premises)
    extremes = sum((bound - mean) ** 2 for bound in bounds) * PSEUDO_PREMISES / 2
    size = rows / units
    # sorted, so that the order of the rows changes nothing
    between = float(np.sort(left**2).sum()) + size**2 * extremes
    within = float(np.sort((value - mean) ** 2).sum()) + size * extremes
    effect = max(1.0, between / within * (units / (units - 1)) * ((rows - 1) / rows))
    return max(1.0, rows / effect * (t_95(rows - 1) / t_95(units - 1)) ** 2)


def exact_p(change: Sequence[int] | Array, premises: Sequence[int]) -> float:
    """Two-sided p of the sign-flip test over premises; `change` is -1, 0 or 1 for each row."""
    if premises_as_units(premises) is None:
        found = np.asarray(change)
        return mcnemar_p(int((found > 0).sum()), int((found < 0).sum()))
    sums = [round(total) for total in premise_sums(np.asarray(change, dtype=float), premises)]
    observed = abs(sum(sums))
    sizes = Counter(abs(total) for total in sums if total)
    if len(sizes) <= 1:  # all of one size: the counts of premises decide
        return mcnemar_p(sum(total > 0 for total in sums), sum(total < 0 for total in sums))
    chances = _sign_flips(sizes)
    highest = sum(size * number for size, number in sizes.items())
    # index i is a sum of 2 i - highest
    tail = float(chances[math.ceil((observed + highest) / 2) :].sum())
    return min(1.0, 2 * tail) if observed else 1.0


def flipped_p(values: Sequence[float] | Array, premises: Sequence[int]) -> float:
    """Two-sided p of the sign-flip test on a mean of any numbers, from random flips.

    The seed is fixed and the rows are ordered first, so that their order changes nothing.
    """
    sums = np.sort(premise_sums(np.asarray(values, dtype=float), premises))
    sums = sums[sums != 0]
    observed = abs(float(sums.sum()))
    random = np.random.Generator(np.random.PCG64(SEED))
    at_once = max(1, SIGNS_AT_ONCE // max(1, len(sums)))
    as_large = 0
    for start in range(0, FLIPS, at_once):
        size = min(at_once, FLIPS - start)
        signs = random.integers(0, 2, size=(size, len(sums)), dtype=np.int8) * 2.0 - 1
        as_large += int((np.abs(signs @ sums) >= observed * (1 - 1e-12)).sum())
    return (1 + as_large) / (1 + FLIPS)


def _mean_interval(
    values: Sequence[float] | Array,
    premises: Sequence[int],
    bounds: tuple[float, float],
    added: float,
    added_sum: float,
    added_squares: float,
) -> tuple[float, float]:
    """Bounds of the mean at 95 %, after rows with this sum and these squares were added."""
    if not len(values):
        raise ValueError("no rows")
    value = np.asarray(values, dtype=float)
    rows = effective_rows(value, premises, bounds)
    size = rows + added
    centre = (rows * float(value.mean()) + added_sum) / size
    variance = (rows * float((value**2).mean()) + added_squares) / size - centre**2
    half = Z_95 * math.sqrt(max(0.0, variance) / size)
    return centre - half, centre + half


def premise_sums(values: Array, premises: Sequence[int]) -> Array:
    """The sum of the values of each premise."""
    _, place = np.unique(np.asarray(premises), return_inverse=True)
    return np.asarray(np.bincount(place, weights=values))


def _sign_flips(sizes: Counter[int]) -> Array:
    """Chances of the number of halves of each sum of values with random signs.

    `sizes` are the absolute values and how often each occurs. Entry i of the result is the chance
    that the values with a plus sum to i.
    """
    total = np.ones(1)
    for size, number in sorted(sizes.items()):
        own = np.zeros(size * number + 1)
        own[::size] = _binomial(number)
        total = np.convolve(total, own)
    return total


def _binomial(number: int) -> Array:
    """Chances of 0 to `number` heads in as many throws of a fair coin."""
    heads = range(number + 1)
    logs = [_log_choose(number, k) - number * math.log(2) for k in heads]
    return np.asarray(np.exp(np.array(logs)))


def _log_choose(whole: int, part: int) -> float:
    return math.lgamma(whole + 1) - math.lgamma(part + 1) - math.lgamma(whole - part + 1)
