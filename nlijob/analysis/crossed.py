"""Intervals over trainings and test rows, which are crossed: every training answers every row.

The mean accuracy of a recipe is uncertain because other trainings and other rows would give another
one. The variance of the mean is the sum of three parts, estimated by moments: one of trainings, one
of rows, one of rows that this training or that happens to answer (Searle, Casella and McCulloch,
1992, Variance Components, chapter 4). Where rows share a premise, sums over premises take the place
of rows (Cameron, Gelbach and Miller, 2011, Robust inference with multiway clustering).

There are many rows, but few trainings. So the part of trainings gets Student's t with the trainings
less one as degrees of freedom, the part of rows has the interval of a single training, and their
squares are added: Howe (1974), Approximate confidence limits on the mean of X + Y where X and Y are
two tabled independent random variables. The interval is never narrower than Student's t of the
trainings' own means; without this, two trainings that happen to agree would hide that trainings
differ (91 % coverage in place of 95 %). `benchmarks/trial_coverage.py` simulates the coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from numpy.typing import NDArray

from nlijob.analysis.clustered import (
    Estimate,
    mean_difference,
    mean_share,
    premise_sums,
    wilson_estimate,
)
from nlijob.analysis.statistics import Z_95, t_point
from nlijob.records.intervals import Interval
from nlijob.records.trials import VarianceShares

Array = NDArray[Any]
FEWEST_TO_PREDICT = 3
"""Fewest trainings from which another one is predicted. Two give an interval 16 times as wide as
their standard deviation, which says nothing."""
SMALLEST_P = 1e-6
CHANCE = 0.05
ROUNDING = 1e-12


@dataclass(frozen=True)
class Spread:
    """How the means of trainings differ: parts of the variance of the mean of all of them."""

    freedom: int
    """Degrees of freedom: the trainings less one."""
    observed: float
    """Variance of the trainings' means, divided by their number. Their rows are part of it."""
    by_rows: float
    """The part of it that comes from rows which this training or that happens to answer."""

    @property
    def own(self) -> float:
        """The part that comes from the trainings themselves, and that other rows would show too."""
        return max(0.0, self.observed - self.by_rows)


def spread_of(right: Array, premises: Sequence[int]) -> Spread:
    """The spread of trainings; `right` says for each what it is right on, [trainings, rows].

    Raises ValueError if there are fewer than two trainings.
    """
    trainings, rows = right.shape
    if trainings < 2:
        raise ValueError(f"{trainings} training: a spread needs two or more")
    # in an order of their own, so that the order of the trainings changes nothing
    order = sorted(range(trainings), key=lambda one: right[one].tobytes())
    value = right[order].astype(float)
    means = value.mean(axis=1)
    left = value - value.mean(axis=0) - (means - means.mean())[:, None]
    units = len({*premises})
    squares = sum(float((premise_sums(row, premises) ** 2).sum()) for row in left)
    correction = units / (units - 1) if units > 1 else 0.0
    return Spread(
        freedom=trainings - 1,
        observed=float(means.var(ddof=1)) / trainings,
        by_rows=squares * correction / (trainings * (trainings - 1) * rows**2),
    )


def of_difference(first: Spread, second: Spread) -> Spread:
    """The spread of the difference of two recipes' means.

    Its degrees of freedom are those of Welch (1947), The generalization of Student's problem when
    several different population variances are involved, rounded down.
    """
    observed = first.observed + second.observed
    squares = first.observed**2 / first.freedom + second.observed**2 / second.freedom
    fewest = min(first.freedom, second.freedom)
    freedom = max(fewest, math.floor(observed**2 / squares + 1e-9)) if squares else fewest
    return Spread(freedom, observed, first.by_rows + second.by_rows)


@dataclass(frozen=True)
class CrossedMean:
    """A mean over trainings and rows with its uncertainty."""

    rows: Estimate
    """The mean and its interval over other rows, with the trainings at hand."""
    spread: Spread
    bounds: tuple[float, float]
    """Least and greatest possible value."""

    def half_width(self, chance: float = CHANCE) -> float:
        """Half-width of the interval that misses with this chance, before it is clipped."""
        by_rows = (self.rows.half / Z_95 * NormalDist().inv_cdf(1 - chance / 2)) ** 2
        point = t_point(self.spread.freedom, chance) ** 2
        return math.sqrt(max(by_rows + point * self.spread.own, point * self.spread.observed))

    def interval(self) -> Interval:
        """95 % interval of the mean over all trainings and all rows of this kind."""
        return self._around(self.half_width())

    def another(self) -> Interval | None:
        """95 % interval for one further training on as many other rows.

        None with fewer than `FEWEST_TO_PREDICT` trainings. The variance is that of the new figure
        plus that of the mean: a further training, twice the rows, and the rows' own chance in both.
        """
        spread, trainings = self.spread, self.spread.freedom + 1
        if trainings < FEWEST_TO_PREDICT:
            return None
        point = t_point(trainings - 1, CHANCE) ** 2
        rows = max(0.0, (self.rows.half / Z_95) ** 2 - spread.by_rows)
        by_rows = Z_95**2 * (2 * rows + (trainings + 1) * spread.by_rows)
        together = by_rows + point * spread.own * (trainings + 1)
        return self._around(math.sqrt(max(together, point * spread.observed * (trainings + 1))))

    def p(self) -> float:
        """Two-sided p of no mean: the least chance with which an interval leaves out 0.

        It is at least `SMALLEST_P`.
        """
        distance = abs(self.rows.centre)
        if distance > self.half_width(SMALLEST_P):
            return SMALLEST_P
        low, high = math.log(SMALLEST_P), 0.0
        for _ in range(40):
            middle = (low + high) / 2
            reached = self.half_width(min(1.0, math.exp(middle))) >= distance
            low, high = (middle, high) if reached else (low, middle)
        return math.exp(high)

    def _around(self, half: float) -> Interval:
        low, high = self.rows.centre - half, self.rows.centre + half
        least, most = self.bounds
        # at the ends the bound is exact; floating point would miss it slightly
        return Interval(
            least if low < least + ROUNDING else low, most if high > most - ROUNDING else high
        )


def mean_accuracy(right: Array, premises: Sequence[int]) -> CrossedMean:
    """Mean accuracy of a recipe; `right` is [trainings, rows] with two trainings or more."""
    rows = mean_share(right.mean(axis=0), premises)
    return CrossedMean(rows, spread_of(right, premises), (0, 1))


def mean_gain(right: Array, base: Array, premises: Sequence[int]) -> CrossedMean:
    """Mean gain of a recipe over the base model, which is right on the rows `base`, [rows]."""
    change = right.mean(axis=0) - base.astype(float)
    rows = mean_difference(change, premises)
    return CrossedMean(rows, spread_of(right, premises), (-1, 1))


def mean_advantage(first: Array, second: Array, premises: Sequence[int]) -> CrossedMean:
    """Mean accuracy of one recipe minus that of another, both [trainings, rows] on the same rows.

    The spread of a recipe with one training is not known and not part of the interval, which is
    then about this one training. Raises ValueError if both have one.
    """
    rows = mean_difference(first.mean(axis=0) - second.mean(axis=0), premises)
    spreads = [spread_of(one, premises) for one in (first, second) if len(one) > 1]
    if not spreads:
        raise ValueError("neither recipe has several trainings")
    spread = of_difference(*spreads) if len(spreads) == 2 else spreads[0]
    return CrossedMean(rows, spread, (-1, 1))


def variance_shares(accuracy: CrossedMean) -> VarianceShares:
    """Where the uncertainty of a mean accuracy comes from, and what more of either would bring."""
    spread, rows = accuracy.spread, accuracy.rows
    of_rows = max(0.0, rows.variance / rows.effective - spread.by_rows)
    parts = spread.own, of_rows, spread.by_rows
    total = sum(parts)
    trainings, alone, both = (part / total for part in parts) if total else (0.0, 1.0, 0.0)
    return VarianceShares(
        trainings=trainings,
        rows=alone,
        both=both,
        half_width=accuracy.half_width(),
        half_width_more_trainings=_with_more_trainings(accuracy).half_width(),
        half_width_more_rows=_with_more_rows(accuracy).half_width(),
    )


def _with_more_trainings(accuracy: CrossedMean) -> CrossedMean:
    """What is expected of twice the trainings."""
    spread = accuracy.spread
    less = spread.by_rows / 2
    variance = max(0.0, accuracy.rows.variance - less * accuracy.rows.effective)
    more = Spread(2 * spread.freedom + 1, spread.observed / 2, less)
    return _changed(accuracy, variance, accuracy.rows.effective, more)


def _with_more_rows(accuracy: CrossedMean) -> CrossedMean:
    """What is expected of twice the rows."""
    spread = accuracy.spread
    observed = spread.own + min(spread.observed, spread.by_rows) / 2
    more = replace(spread, observed=observed, by_rows=spread.by_rows / 2)
    return _changed(accuracy, accuracy.rows.variance, 2 * accuracy.rows.effective, more)


def _changed(accuracy: CrossedMean, variance: float, rows: float, spread: Spread) -> CrossedMean:
    old = accuracy.rows
    added = Z_95 * Z_95
    mean = (old.centre * (old.effective + added) - added / 2) / old.effective
    return replace(accuracy, rows=wilson_estimate(mean, variance, rows), spread=spread)
