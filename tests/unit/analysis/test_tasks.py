"""Both models in tasks of lm-evaluation-harness, paired by document."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from nlijob.analysis.statistics import paired_difference_interval
from nlijob.analysis.tasks import compare_tasks
from nlijob.records.forgetting import TaskScore

RANDOM = np.random.default_rng(3)
BEFORE = (RANDOM.random(80) < 0.7).astype(float)
WORSE = BEFORE * (RANDOM.random(80) < 0.6)


def score(values: Sequence[float], task: str = "own", metric: str = "acc") -> TaskScore:
    numbers = tuple(float(value) for value in values)
    value = sum(numbers) / len(numbers)
    return TaskScore(task, metric, value, 0.05, True, tuple(range(len(numbers))), numbers)


def test_the_change_is_paired_by_document() -> None:
    (found,) = compare_tasks([score(list(BEFORE))], {"": [score(list(WORSE))]}, "")
    change = WORSE - BEFORE
    assert found.difference == pytest.approx(change.mean())
    bounds = paired_difference_interval(0, int((change != 0).sum()), 80)
    assert found.interval is not None
    expected = pytest.approx((bounds.low, bounds.high))
    assert (found.interval.low, found.interval.high) == expected
    exact = stats.binomtest(0, int((change != 0).sum())).pvalue
    assert found.p == pytest.approx(exact, abs=1e-3)  # 10,000 random flips
    assert (found.base_stderr, found.documents) == (0.05, 80)


def test_values_that_are_no_shares_have_an_interval_by_students_t() -> None:
    before, after = BEFORE * 7, WORSE * 7
    (found,) = compare_tasks([score(list(before))], {"": [score(list(after))]}, "")
    change = after - before
    low, high = stats.t.interval(0.95, 79, change.mean(), stats.sem(change))
    assert found.interval is not None
    # t's point is computed by an expansion whose error is below 0.1 %
    expected = pytest.approx((low, high), abs=1e-3 * (high - low))
    assert (found.interval.low, found.interval.high) == expected


def test_equal_answers_are_no_change_and_few_of_them_say_little() -> None:
    (found,) = compare_tasks([score([1, 0, 1])], {"": [score([1, 0, 1])]}, "")
    assert (found.difference, found.p) == (0, 1)
    assert found.interval is not None
    assert found.interval.low < -0.2
    assert found.interval.high > 0.2


def test_p_values_are_adjusted_for_all_tasks_and_metrics() -> None:
    base = [score(list(BEFORE)), score(list(BEFORE), metric="acc_norm"), score([1.0, 0.0], "few")]
    tuned = [score(list(WORSE)), score(list(WORSE), metric="acc_norm"), score([1.0, 0.0], "few")]
    found = compare_tasks(base, {"": tuned}, "")
    assert [(one.task, one.metric) for one in found] == [
        ("own", "acc"),
        ("own", "acc_norm"),
        ("few", "acc"),
    ]
    assert found[0].adjusted_p == pytest.approx(3 * found[0].p)


def test_several_trainings_have_a_value_each() -> None:
    tuned = {"seed-1": [score(list(WORSE))], "seed-2": [score(list(BEFORE))]}
    (found,) = compare_tasks([score(list(BEFORE))], tuned, "seed-1")
    assert [one.name for one in found.trials] == ["seed-1", "seed-2"]
    values = [one.value for one in found.trials]
    assert values == pytest.approx([WORSE.mean(), BEFORE.mean()])
    assert found.trials[1].difference == 0


def test_other_documents_are_damaged_records() -> None:
    with pytest.raises(ValueError, match="different documents"):
        compare_tasks([score([1.0, 0.0])], {"": [score([1.0])]}, "")


def test_without_scores_there_are_no_tasks() -> None:
    assert compare_tasks([], {"": []}, "") == ()
