"""Bootstrap intervals of balanced accuracy and macro F1."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from nlijob.analysis import bootstrap
from nlijob.analysis.bootstrap import bootstrap_intervals, paired_table
from nlijob.analysis.metrics import measure
from nlijob.records.intervals import Interval
from nlijob.records.job import Prediction
from nlijob.records.outcome import ChangeIntervals
from tests.effort import lines_run
from tests.unit.analysis.made import NAMES, answered, chance_answers


def both(rows: int, before: float, after: float) -> tuple[list[Prediction], list[Prediction]]:
    gold = [i % 3 for i in range(rows)]
    return (
        answered(gold, chance_answers(gold, before, seed=1)),
        answered(gold, chance_answers(gold, after, seed=2)),
    )


def bounds(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.low, interval.high


@pytest.mark.parametrize("labels", [(0, 1, 2), (0, 1)])
def test_figures_of_a_table_agree_with_scikit_learn(labels: tuple[int, ...]) -> None:
    chance = random.Random(5)
    gold = [chance.choice(labels) for _ in range(80)]
    answers = [chance.choice(labels) for _ in range(80)]
    confusion = paired_table(answered(gold, answers), answered(gold, answers), 3).sum(-1)
    assert bootstrap.balanced_accuracy(confusion) == pytest.approx(
        balanced_accuracy_score(gold, answers)
    )
    assert bootstrap.macro_f1(confusion) == pytest.approx(f1_score(gold, answers, average="macro"))


def test_intervals_agree_with_resampling_the_rows_themselves() -> None:
    base, tuned = both(491, 0.5, 0.85)
    found = bootstrap_intervals(base, tuned, 3)
    chance = np.random.default_rng(3)
    gold, before, after = (
        np.array([row.label for row in base]),
        np.array([row.predicted for row in base]),
        np.array([row.predicted for row in tuned]),
    )
    changes = []
    for _ in range(400):
        own = chance.integers(0, 491, 491)
        changes.append(
            balanced_accuracy_score(gold[own], after[own])
            - balanced_accuracy_score(gold[own], before[own])
        )
    expected = np.quantile(changes, [0.025, 0.975])
    assert bounds(found.balanced_accuracy.change) == pytest.approx(expected, abs=0.012)


def test_on_many_rows_the_interval_is_the_normal_one_at_95_percent() -> None:
    base, _ = both(9999, 0.7, 0.7)
    metrics = measure(base, NAMES)
    recalls = [(own.recall or 0.0, own.support) for own in metrics.classes]
    error = math.sqrt(sum(share * (1 - share) / rows for share, rows in recalls)) / 3
    low, high = bounds(bootstrap_intervals(base, base, 3).balanced_accuracy.base)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.04)


@pytest.mark.parametrize(("before", "after"), [(0.4, 0.9), (0.95, 0.6), (1.0, 1.0), (0.0, 0.0)])
@pytest.mark.parametrize("rows", [3, 30, 100])
def test_every_interval_contains_the_measured_figure(
    rows: int, before: float, after: float
) -> None:
    base, tuned = both(rows, before, after)
    found, first, last = (
        bootstrap_intervals(base, tuned, 3),
        measure(base, NAMES),
        measure(tuned, NAMES),
    )

    def holds(interval: Interval | None, value: float) -> bool:
        low, high = bounds(interval)
        return low - 1e-12 <= value <= high + 1e-12

    accuracy, f1 = found.balanced_accuracy, found.macro_f1
    assert holds(accuracy.base, first.balanced_accuracy)
    assert holds(accuracy.tuned, last.balanced_accuracy)
    assert holds(accuracy.change, last.balanced_accuracy - first.balanced_accuracy)
    assert holds(f1.base, first.macro_f1)
    assert holds(f1.tuned, last.macro_f1)
    assert holds(f1.change, last.macro_f1 - first.macro_f1)


def test_a_perfect_model_still_has_an_interval_of_some_width() -> None:
    perfect, _ = both(60, 1.0, 1.0)
    low, high = bounds(bootstrap_intervals(perfect, perfect, 3).balanced_accuracy.tuned)
    assert 0.85 < low < 0.97
    assert high == 1.0


def test_the_same_answers_twice_give_a_change_interval_around_zero() -> None:
    base, _ = both(60, 0.7, 0.7)
    low, high = bounds(bootstrap_intervals(base, base, 3).macro_f1.change)
    assert low < 0 < high


def test_a_label_without_rows_does_not_pull_the_figures_down() -> None:
    gold = [0, 1] * 50
    base = answered(gold, gold)
    low, _ = bounds(bootstrap_intervals(base, base, 3).balanced_accuracy.base)
    assert low > 0.9
    stray = answered(gold, [2, *gold[1:]])
    low, _ = bounds(bootstrap_intervals(stray, base, 3).balanced_accuracy.tuned)
    assert low > 0.9


def test_one_label_throughout_has_no_interval() -> None:
    rows = answered([1] * 20, [1] * 20)
    assert bootstrap_intervals(rows, rows, 3).macro_f1 == ChangeIntervals(None, None, None)


def test_one_row_gives_a_very_wide_interval() -> None:
    low, high = bounds(
        bootstrap_intervals(answered([0], [0]), answered([0], [1]), 3).balanced_accuracy.base
    )
    assert (low, high) == (0.0, 1.0)


def test_the_same_predictions_in_any_order_give_the_same_figures() -> None:
    base, tuned = both(98, 0.5, 0.8)
    assert bootstrap_intervals(base, tuned, 3) == bootstrap_intervals(base[::-1], tuned[::-1], 3)


def test_intervals_hardly_depend_on_the_seed() -> None:
    base, tuned = both(98, 0.5, 0.8)
    one, other = (
        bounds(bootstrap_intervals(base, tuned, 3, seed=seed).macro_f1.change) for seed in (1, 2)
    )
    assert one != other
    assert one == pytest.approx(other, abs=0.006)


def test_resampling_in_pieces_gives_as_many_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "CELLS_AT_ONCE", 27 * 300)
    base, tuned = both(98, 0.5, 0.8)
    chunks = bootstrap._row_draws(paired_table(base, tuned, 3), 1000, 1)
    assert [len(chunk) for chunk in chunks] == [300, 300, 300, 100]


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    chance = np.random.default_rng(7)
    covered = 0
    for _ in range(200):  # accuracy 0.97 on 100 rows, where plain resampling covers 90 %
        gold = [int(label) for label in chance.integers(0, 3, 100)]
        wrong = chance.random(100) < 0.03
        answers = [
            (label + 1) % 3 if off else label for label, off in zip(gold, wrong, strict=True)
        ]
        rows = answered(gold, answers)
        found = bootstrap_intervals(rows, rows, 3, resamples=500)
        low, high = bounds(found.balanced_accuracy.tuned)
        covered += low <= 0.97 <= high
    assert covered >= 184  # 92 %


def test_the_work_grows_with_the_rows_alone_and_not_with_resamples() -> None:
    table_rows = both(2_000, 0.5, 0.85)
    assert lines_run(lambda: bootstrap_intervals(*table_rows, 3)) < 30 * 2_000


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no test rows"):
        bootstrap_intervals([], [], 3)


# ---------------------------------------------------------------- premises


def thrice(rows: list[Prediction]) -> list[Prediction]:
    """Every row three times, with the same premise as its copies (see `of_copies`)."""
    return [replace(row, index=3 * row.index + copy) for row in rows for copy in range(3)]


def of_copies(rows: int) -> dict[int, int]:
    return {index: index // 3 for index in range(3 * rows)}


def widths(intervals: ChangeIntervals) -> list[float]:
    found = (intervals.base, intervals.tuned, intervals.change)
    return [high - low for low, high in map(bounds, found)]


def test_with_one_row_for_each_premise_nothing_changes() -> None:
    base, tuned = both(98, 0.5, 0.8)
    premises = {row.index: 500 - row.index for row in base}
    assert bootstrap_intervals(base, tuned, 3, premises) == bootstrap_intervals(base, tuned, 3)


def test_copies_of_rows_do_not_narrow_the_intervals() -> None:
    base, tuned = both(98, 0.5, 0.8)
    single = bootstrap_intervals(base, tuned, 3)
    copied = bootstrap_intervals(thrice(base), thrice(tuned), 3, of_copies(98))
    assert copied.premises == 98
    # 10,000 and 4,000 resamples: each bound moves by about 1 % of the width with the seed
    for one, other in (
        (single.balanced_accuracy, copied.balanced_accuracy),
        (single.macro_f1, copied.macro_f1),
    ):
        assert widths(other) == pytest.approx(widths(one), rel=0.08)
    alone = bootstrap_intervals(thrice(base), thrice(tuned), 3)
    for narrow, wide in zip(widths(alone.macro_f1), widths(copied.macro_f1), strict=True):
        assert narrow < 0.7 * wide


def test_intervals_agree_with_a_bootstrap_of_whole_premises_by_hand() -> None:
    base, tuned = both(600, 0.5, 0.8)
    premises = {row.index: row.index // 3 for row in base}
    found = bootstrap_intervals(base, tuned, 3, premises).balanced_accuracy.tuned
    gold = np.array([row.label for row in tuned]).reshape(200, 3)
    answers = np.array([row.predicted for row in tuned]).reshape(200, 3)
    chance = np.random.default_rng(7)
    figures = []
    for _ in range(2_000):
        drawn = chance.integers(0, 200, size=200)
        figures.append(balanced_accuracy_score(gold[drawn].ravel(), answers[drawn].ravel()))
    # 2,000 resamples, pseudo-premises: a tenth of the width of 6 points
    assert bounds(found) == pytest.approx(np.quantile(figures, [0.025, 0.975]), abs=0.006)


def test_the_order_of_rows_that_share_premises_changes_nothing() -> None:
    base, tuned = both(90, 0.5, 0.8)
    premises = {row.index: row.index // 3 for row in base}
    one = bootstrap_intervals(base, tuned, 3, premises)
    assert bootstrap_intervals(base[::-1], tuned[::-1], 3, premises) == one


def test_a_model_that_is_always_right_has_an_interval_of_some_width_on_few_premises() -> None:
    gold = [i % 3 for i in range(99)]
    rows = answered(gold, gold)
    premises = {row.index: row.index // 3 for row in rows}
    found = bootstrap_intervals(rows, rows, 3, premises)
    assert bounds(found.balanced_accuracy.tuned)[0] < 0.97
