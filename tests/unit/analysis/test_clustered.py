"""Intervals and tests where rows share premises, compared with independent implementations."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
import scipy.stats
import statsmodels.api
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from benchmarks.coverage import measure
from nlijob.analysis.clustered import (
    accuracy_interval,
    effective_rows,
    exact_p,
    flipped_p,
    mean_difference_interval,
    mean_share_interval,
    paired_difference,
    premises_as_units,
)
from nlijob.analysis.statistics import (
    mcnemar_p,
    paired_difference_interval,
    t_95,
    wilson_interval,
)

ROW = st.tuples(st.booleans(), st.booleans(), st.integers(0, 12))
"""Whether each of two models is right, and the premise."""
ROWS = st.lists(ROW, min_size=1, max_size=60)
FEW_ROWS = st.lists(ROW, min_size=1, max_size=14)


def columns(
    rows: Sequence[tuple[bool, bool, int]],
) -> tuple[list[bool], list[bool], list[int]]:
    first, second, premises = zip(*rows, strict=True)
    return list(first), list(second), list(premises)


def correlated(
    rows: int, a_premise: int, accuracy: float, correlation: float, seed: int
) -> tuple[list[bool], list[int]]:
    chance = np.random.default_rng(seed)
    premises = np.arange(rows) // a_premise
    strength = 1 / correlation - 1
    chances = chance.beta(accuracy * strength, (1 - accuracy) * strength, size=premises[-1] + 1)
    return (chance.random(rows) < chances[premises]).tolist(), premises.tolist()


# ---------------------------------------------------------------- one row for each premise


@given(ROWS)
def test_with_one_row_for_each_premise_every_figure_is_the_row_wise_one(
    rows: list[tuple[bool, bool, int]],
) -> None:
    first, second, _ = columns(rows)
    premises = list(range(100, 100 + len(rows)))
    assert accuracy_interval(first, premises) == wilson_interval(sum(first), len(rows))
    found = paired_difference(first, second, premises)
    gained = sum(one and not other for one, other in zip(first, second, strict=True))
    lost = sum(other and not one for one, other in zip(first, second, strict=True))
    assert found.interval == paired_difference_interval(gained, lost, len(rows))
    assert found.mcnemar_p == mcnemar_p(gained, lost)
    assert (found.gained, found.lost, found.premises) == (gained, lost, None)


# ---------------------------------------------------------------- properties


@given(ROWS)
def test_intervals_contain_the_estimate_and_stay_in_range(
    rows: list[tuple[bool, bool, int]],
) -> None:
    first, second, premises = columns(rows)
    bounds = accuracy_interval(first, premises)
    assert 0 <= bounds.low <= sum(first) / len(first) <= bounds.high <= 1
    found = paired_difference(first, second, premises)
    assert -1 <= found.interval.low <= found.difference <= found.interval.high <= 1
    assert 0 < found.mcnemar_p <= 1


@given(ROWS)
def test_rows_that_share_premises_are_never_worth_more_than_independent_ones(
    rows: list[tuple[bool, bool, int]],
) -> None:
    first, _, premises = columns(rows)
    assert 1 <= effective_rows(first, premises, (0, 1)) <= len(rows)


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_and_the_numbers_of_the_premises_change_nothing(
    rows: list[tuple[bool, bool, int]], shuffle: random.Random
) -> None:
    other = [(one, two, 7 - premise) for one, two, premise in rows]
    shuffle.shuffle(other)
    first, second, premises = columns(rows)
    first_again, second_again, renumbered = columns(other)
    assert accuracy_interval(first, premises) == accuracy_interval(first_again, renumbered)
    assert paired_difference(first, second, premises) == paired_difference(
        first_again, second_again, renumbered
    )


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=8, max_size=30))
def test_an_interval_shrinks_if_every_premise_is_seen_twice_as_often(
    rows: list[tuple[bool, int]],
) -> None:
    right, premises = [one for one, _ in rows], [premise for _, premise in rows]
    few = accuracy_interval(right, premises)
    many = accuracy_interval(right * 2, premises + [premise + 100 for premise in premises])
    assert many.high - many.low < few.high - few.low + 1e-12


# ---------------------------------------------------------------- independent sources


@given(FEW_ROWS)
@settings(deadline=None)
def test_p_is_that_of_all_exchanges_of_the_models_in_whole_premises(
    rows: list[tuple[bool, bool, int]],
) -> None:
    first, second, premises = columns(rows)
    change = [int(one) - int(other) for one, other in zip(first, second, strict=True)]
    sums = [
        sum(c for c, p in zip(change, premises, strict=True) if p == premise)
        for premise in {*premises}
    ]
    exchanges = [
        abs(sum(sign * total for sign, total in zip(signs, sums, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    expected = sum(total >= abs(sum(sums)) for total in exchanges) / len(exchanges)
    assert exact_p(change, premises) == pytest.approx(expected, rel=1e-9)


def test_p_of_many_premises_agrees_with_the_clustered_test_of_obuchowski() -> None:
    first, premises = correlated(3000, 3, 0.80, 0.15, seed=3)
    second, _ = correlated(3000, 3, 0.78, 0.15, seed=4)
    change = np.array(first, dtype=int) - np.array(second, dtype=int)
    sums = np.bincount(premises, weights=change)
    expected = 2 * scipy.stats.norm.sf(abs(sums.sum()) / math.sqrt((sums**2).sum()))
    assert exact_p(change, premises) == pytest.approx(expected, abs=0.005)


def test_random_sign_flips_agree_with_scipys_permutation_test() -> None:
    chance = np.random.default_rng(8)
    changes = chance.normal(0.1, 0.5, size=40)

    def mean(values: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(values.mean(axis=axis))

    expected = scipy.stats.permutation_test(
        (changes,), mean, permutation_type="samples", n_resamples=20_000, rng=chance
    ).pvalue
    # two estimates from 10,000 and 20,000 flips; 4 standard errors
    assert flipped_p(changes, list(range(40))) == pytest.approx(expected, abs=0.025)


def test_the_variance_of_the_mean_is_that_of_statsmodels_cluster_robust_regression() -> None:
    right, premises = correlated(2400, 3, 0.7, 0.2, seed=5)
    fit = statsmodels.api.OLS(np.array(right, dtype=float), np.ones(len(right))).fit(
        cov_type="cluster", cov_kwds={"groups": np.array(premises)}
    )
    share = sum(right) / len(right)
    expected = share * (1 - share) / fit.cov_params()[0, 0]
    # the pseudo-premises and the t quantiles of 800 premises shift it by less than 1 %
    assert effective_rows(right, premises, (0, 1)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 32, 1000])
def test_quantiles_of_t_agree_with_scipy(freedom: int) -> None:
    assert t_95(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=1e-3)


# ---------------------------------------------------------------- cases


def test_copies_of_rows_do_not_narrow_an_interval() -> None:
    right = [True] * 24 + [False] * 8
    single = accuracy_interval(right, range(32))
    copied = accuracy_interval(right * 3, [*range(32)] * 3)
    assert copied.high - copied.low > 0.95 * (single.high - single.low)


def test_copies_of_rows_do_not_lower_p() -> None:
    first, second = [True] * 9 + [False] * 20, [False] * 8 + [True] + [False] * 20
    single = paired_difference(first, second, range(29)).mcnemar_p
    copied = paired_difference(first * 3, second * 3, [*range(29)] * 3).mcnemar_p
    assert copied == pytest.approx(single)


def test_a_model_that_is_always_right_is_no_more_certain_than_its_premises_allow() -> None:
    low = accuracy_interval([True] * 99, [row // 3 for row in range(99)]).low
    assert low < wilson_interval(99, 99).low
    assert low == pytest.approx(wilson_interval(33, 33).low, abs=0.01)


def test_one_premise_is_one_observation() -> None:
    assert effective_rows([True, False, True], [4, 4, 4], (0, 1)) == 1.0
    assert paired_difference([True] * 9, [False] * 9, [4] * 9).mcnemar_p == 1.0


def test_very_many_premises_have_a_p_of_their_own() -> None:
    change = [1, 1, 0] * 4000 + [1, 0, 0] * 4000 + [-1, 0, 0] * 100
    p = exact_p(change, [row // 3 for row in range(len(change))])
    assert 0 <= p < 1e-100


def test_premises_are_units_only_where_they_repeat() -> None:
    assert premises_as_units([4, 5, 6]) is None
    assert premises_as_units([4, 5, 5]) == 2


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        paired_difference([], [], [])


@pytest.mark.parametrize("sizes", ["balanced", "skewed"])
def test_intervals_and_tests_hold_where_row_wise_ones_do_not(sizes: str) -> None:
    found = measure(rows=491, correlation=0.15, sizes=sizes, samples=1_000)
    # 95 % less 3 standard errors of 1,000 samples, 0.7 points each
    assert min(found.accuracy, found.gain) > 0.929
    assert found.false_alarms < 0.071
    assert max(found.accuracy_by_rows, found.gain_by_rows) < 0.93


def test_mean_differences_of_zeros_and_ones_have_the_interval_of_paired_counts() -> None:
    premises = [i // 2 for i in range(60)]
    first, second = [i % 3 > 0 for i in range(60)], [i % 5 > 0 for i in range(60)]
    differences = [float(a) - float(b) for a, b in zip(first, second, strict=True)]
    for numbers in (premises, list(range(60))):
        found = mean_difference_interval(differences, numbers)
        expected = paired_difference(first, second, numbers).interval
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_mean_shares_of_zeros_and_ones_have_the_interval_of_agresti_and_coull() -> None:
    shares = [1.0] * 45 + [0.0] * 15
    found = mean_share_interval(shares, list(range(60)))
    low, high = proportion_confint(45, 60, method="agresti_coull")
    assert (found.low, found.high) == pytest.approx((low, high))


def test_shares_that_vary_less_than_zeros_and_ones_have_a_narrower_interval() -> None:
    halves = mean_share_interval([0.5] * 60, list(range(60)))
    extremes = mean_share_interval([0.0, 1.0] * 30, list(range(60)))
    assert halves.high - halves.low < 0.5 * (extremes.high - extremes.low)


def test_the_mean_of_no_rows_has_no_interval() -> None:
    with pytest.raises(ValueError, match="no rows"):
        mean_share_interval([], [])
