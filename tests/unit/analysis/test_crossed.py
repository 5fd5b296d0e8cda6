"""Intervals over trainings and rows, and where their width comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student

from benchmarks.trial_coverage import Cell, measure
from nlijob.analysis.clustered import Array, accuracy_interval, paired_difference
from nlijob.analysis.crossed import (
    SMALLEST_P,
    CrossedMean,
    mean_accuracy,
    mean_advantage,
    mean_gain,
    spread_of,
    variance_shares,
)
from nlijob.analysis.statistics import t_point, t_tail

ROWS = 300
APART = list(range(ROWS))
IN_THREES = [index // 3 for index in range(ROWS)]


def chance(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def trainings(*accuracies: float, seed: int = 1, shared: float = 0.7) -> Array:
    """Trainings of these accuracies; `shared` of the rows have the same luck in all of them."""
    random = chance(seed)
    luck = random.random(ROWS)
    own = random.random((len(accuracies), ROWS))
    has_shared = random.random(ROWS) < shared
    return np.asarray(np.where(has_shared, luck, own) < np.array(accuracies)[:, None])


BASE = chance(9).random(ROWS) < 0.5


def means(right: Array, premises: list[int]) -> tuple[CrossedMean, CrossedMean]:
    return mean_accuracy(right, premises), mean_gain(right, BASE, premises)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 10, 30])
def test_students_t_agrees_with_scipy(freedom: int) -> None:
    for point in (0.0, 0.3, 1.0, 2.5, 40.0):
        assert t_tail(freedom, point) == pytest.approx(2 * student.sf(point, freedom), abs=1e-12)
    for probability in (1.0, 0.5, 0.05, 0.001, 1e-6):
        expected = student.isf(probability / 2, freedom)
        assert t_point(freedom, probability) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("premises", [APART, IN_THREES], ids=["apart", "in threes"])
def test_equal_trainings_have_the_intervals_of_one(premises: list[int]) -> None:
    (one,) = trainings(0.8)
    accuracy, gain = means(np.array([one] * 4), premises)
    right = one.tolist()
    expected = accuracy_interval(right, premises)
    assert accuracy.interval().low == pytest.approx(expected.low)
    assert accuracy.interval().high == pytest.approx(expected.high)
    expected = paired_difference(right, BASE.tolist(), premises).interval
    assert gain.interval().low == pytest.approx(expected.low)
    assert gain.interval().high == pytest.approx(expected.high)


def test_equal_trainings_have_no_share_of_the_variance() -> None:
    (one,) = trainings(0.8)
    shares = variance_shares(mean_accuracy(np.array([one] * 3), APART))
    assert (shares.trainings, shares.rows, shares.both) == (0, 1, 0)
    assert shares.half_width_more_trainings == pytest.approx(shares.half_width)
    assert shares.half_width_more_rows == pytest.approx(shares.half_width / 2**0.5, rel=0.01)


@pytest.mark.parametrize("answer", [True, False], ids=["all right", "all wrong"])
def test_trainings_that_are_right_on_all_rows_or_none_still_have_an_interval(answer: bool) -> None:
    accuracy = mean_accuracy(np.full((3, ROWS), answer), IN_THREES)
    bounds = accuracy.interval()
    assert 0.01 < bounds.high - bounds.low < 0.1
    assert {bounds.low, bounds.high} & {0.0, 1.0}
    shares = variance_shares(accuracy)
    assert shares.trainings + shares.rows + shares.both == 1


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("premises", [APART, IN_THREES], ids=["apart", "in threes"])
def test_shares_of_the_variance_are_never_negative_and_sum_to_one(
    seed: int, premises: list[int]
) -> None:
    right = trainings(0.8, 0.8, 0.8 - 0.02 * seed, seed=seed, shared=seed / 8)
    shares = variance_shares(mean_accuracy(right, premises))
    parts = shares.trainings, shares.rows, shares.both
    assert min(parts) >= 0
    assert sum(parts) == pytest.approx(1)
    assert shares.half_width_more_trainings <= shares.half_width
    assert shares.half_width_more_rows <= shares.half_width


def test_more_seeds_narrow_an_interval_that_comes_from_trainings_and_rows_do_not() -> None:
    shares = variance_shares(mean_accuracy(trainings(0.6, 0.75, 0.9, shared=1.0), APART))
    assert shares.trainings > 0.9
    assert shares.half_width_more_trainings < 0.5 * shares.half_width
    assert shares.half_width_more_rows > 0.95 * shares.half_width


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_trainings_and_of_rows_changes_nothing(seed: int) -> None:
    right = trainings(0.7, 0.75, 0.8, 0.8, seed=seed)
    order = chance(seed).permutation(ROWS)
    premises = [IN_THREES[place] for place in order]
    expected, found = mean_accuracy(right, IN_THREES), mean_accuracy(right[::-1], IN_THREES)
    assert found.interval() == expected.interval()
    assert variance_shares(found) == variance_shares(expected)
    turned = mean_accuracy(right[:, order], premises)
    assert turned.half_width() == pytest.approx(expected.half_width())
    assert turned.spread.by_rows == pytest.approx(expected.spread.by_rows)


@pytest.mark.parametrize("premises", [APART, IN_THREES], ids=["apart", "in threes"])
def test_the_components_are_those_of_the_analysis_of_variance(premises: list[int]) -> None:
    right = trainings(0.7, 0.8, 0.85).astype(float)
    spread = spread_of(right > 0, premises)
    units = len({*premises})
    cells = right.reshape(3, units, -1).sum(axis=2)  # premises of one size, in order
    left = cells - cells.mean(axis=0) - cells.mean(axis=1)[:, None] + cells.mean()
    mean_square = (left**2).sum() / (2 * (units - 1))
    assert spread.by_rows == pytest.approx(mean_square * units / 3 / ROWS**2)
    assert spread.observed == pytest.approx(right.mean(axis=1).var(ddof=1) / 3)
    assert spread.freedom == 2


@pytest.mark.parametrize("figure", [mean_accuracy, lambda r, p: mean_gain(r, BASE, p)])
def test_an_interval_is_never_narrower_than_students_t_of_the_trainings_means(
    figure: Callable[[Array, list[int]], CrossedMean],
) -> None:
    right = trainings(0.75, 0.76, 0.8)
    half = figure(right, APART).half_width()
    of_means = right.mean(axis=1)
    assert half >= student.ppf(0.975, 2) * of_means.std(ddof=1) / 3**0.5 * (1 - 1e-9)


def test_another_training_is_less_certain_than_the_mean_and_unknown_from_two() -> None:
    right = trainings(0.75, 0.8, 0.78)
    accuracy = mean_accuracy(right, APART)
    another, mean = accuracy.another(), accuracy.interval()
    assert another is not None
    assert another.low < mean.low
    assert another.high > mean.high
    assert mean_accuracy(right[:2], APART).another() is None


@pytest.mark.parametrize("apart", [0.0, 0.05, 0.1, 0.4])
def test_p_is_below_005_just_where_the_interval_leaves_out_zero(apart: float) -> None:
    found = mean_advantage(trainings(*[0.5 + apart] * 3), trainings(*[0.5] * 4, seed=2), APART)
    bounds = found.interval()
    assert SMALLEST_P <= found.p() <= 1
    assert (found.p() < 0.05) == (not bounds.low <= 0 <= bounds.high)


def test_p_is_the_chance_at_which_the_interval_ends_at_zero() -> None:
    found = mean_advantage(trainings(0.62, 0.6, 0.61), trainings(0.5, 0.53, seed=2), APART)
    assert found.half_width(found.p()) == pytest.approx(abs(found.rows.centre), rel=1e-4)


def test_exchanged_recipes_turn_the_difference_around() -> None:
    first, second = trainings(0.8, 0.82), trainings(0.7, 0.75, 0.72, seed=2)
    one, other = mean_advantage(first, second, APART), mean_advantage(second, first, APART)
    bounds = one.interval()
    turned = other.interval()
    assert (turned.low, turned.high) == pytest.approx((-bounds.high, -bounds.low))
    assert one.p() == pytest.approx(other.p())


def test_a_recipe_with_one_training_adds_no_spread() -> None:
    first, second = trainings(0.8, 0.85, 0.75), trainings(0.7, seed=2)
    found = mean_advantage(first, second, APART)
    assert found.spread == spread_of(first, APART)
    with pytest.raises(ValueError, match="neither recipe"):
        mean_advantage(second, second, APART)


def test_one_training_has_no_spread() -> None:
    with pytest.raises(ValueError, match="two or more"):
        spread_of(trainings(0.8), APART)


def test_a_wider_spread_widens_the_interval() -> None:
    accuracy = mean_accuracy(trainings(0.75, 0.8, 0.78), APART)
    wider = replace(accuracy, spread=replace(accuracy.spread, observed=0.01))
    assert wider.half_width() > accuracy.half_width()


SAMPLES = 200
FEWEST = 0.95 - 3 * (0.95 * 0.05 / SAMPLES) ** 0.5
"""Three standard errors below 95 %. The seed is fixed."""


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_simulated_intervals_hold_where_trainings_differ(count: int) -> None:
    found = measure(Cell(count, spread=0.06, rows=297, rows_a_premise=3), SAMPLES)
    assert found.by_rows < 0.85
    assert found.accuracy >= FEWEST
    assert found.gain >= FEWEST
    assert found.advantage >= FEWEST
    assert found.another is None or found.another >= FEWEST


def test_intervals_are_not_wider_than_one_trainings_where_trainings_do_not_differ() -> None:
    found = measure(Cell(5, spread=0.0, rows=297, rows_a_premise=3), SAMPLES)
    alone = accuracy_interval([True] * 238 + [False] * 59, list(range(297)))  # at 80 %
    assert found.half_width < (alone.high - alone.low) / 2
    assert found.accuracy >= FEWEST
