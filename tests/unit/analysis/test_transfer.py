"""Further test sets: answers with the labels of the set, and whether a gain carries over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nlijob.analysis.clustered import paired_difference
from nlijob.analysis.transfer import (
    answers_of_set,
    carries_over,
    gains_compared,
    measure_transfer,
    transfer_warnings,
)
from nlijob.config import load_config
from nlijob.records.intervals import Interval, PairedDifference
from nlijob.records.job import Example
from nlijob.records.outcome import TransferResult
from nlijob.records.transfer import TransferPrediction
from nlijob.rundir import RunDir
from tests.transfer_sets import TWO, MadeSet, config_with, write_sets

DEMO = load_config("demo")


def change(gained: int, lost: int, rows: int = 100) -> PairedDifference:
    first = [True] * gained + [False] * (rows - gained)
    second = [False] * gained + [True] * lost + [False] * (rows - gained - lost)
    return paired_difference(first, second, range(rows))


GAIN, NO_GAIN = change(30, 4), change(10, 9)


def measured(
    folder: Path, *sets: MadeSet, own: PairedDifference = GAIN
) -> tuple[TransferResult, ...]:
    run, config = RunDir(folder), config_with(DEMO, *sets)
    write_sets(run, config, *sets)
    return measure_transfer(run, config, own)


def codes(results: Sequence[TransferResult], own: PairedDifference = GAIN) -> list[str]:
    return [found.code for found in transfer_warnings(results, own)]


# ---------------------------------------------------------------- labels of the set


@pytest.mark.parametrize(
    ("probabilities", "sums", "predicted", "is_right_by_sum"),
    [
        ((0.4, 0.35, 0.25), (0.4, 0.6), 0, True),  # the sum and the most probable answer differ
        ((0.2, 0.1, 0.7), (0.2, 0.8), 1, True),
        ((0.4, 0.4, 0.2), (0.4, 0.6), 0, True),  # of equal answers, the first
        ((0.5, 0.25, 0.25), (0.5, 0.5), 0, False),  # of equal sums, the first
    ],
)
def test_the_most_probable_answer_counts_and_not_the_sum_of_those_for_one_label(
    probabilities: tuple[float, ...],
    sums: tuple[float, ...],
    predicted: int,
    is_right_by_sum: bool,
) -> None:
    rows = [Example(7, "p", "h", 1)]
    (one,) = answers_of_set([TransferPrediction(7, probabilities, 9)], rows, (0, 1, 1))
    assert one.given.probabilities == pytest.approx(sums)
    assert (one.given.label, one.given.predicted) == (1, predicted)
    assert one.is_right_by_sum == is_right_by_sum


@pytest.mark.parametrize(
    "wrong",
    [
        [TransferPrediction(8, (0.5, 0.25, 0.25), 9)],
        [TransferPrediction(7, (0.5, 0.25, 0.25), 9)] * 2,
        [TransferPrediction(7, (0.5, 0.5), 9)],
    ],
)
def test_answers_that_are_not_to_the_rows_of_the_set_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"other rows|zip\(\)"):
        answers_of_set(wrong, [Example(7, "p", "h", 1)], (0, 1, 1))


def test_a_set_that_merges_labels_is_measured_with_its_own(tmp_path: Path) -> None:
    made = MadeSet(rows=40, base=10, tuned=30, label_names=TWO, answers=(0, 1, 1))
    (one,) = measured(tmp_path, made)
    assert (one.base.accuracy, one.tuned.accuracy, one.majority) == (0.25, 0.75, 0.5)
    assert one.over_own is None  # its gain is that of another question
    by_label = {found.key: found.rows for found in one.slices}
    assert by_label == dict.fromkeys(TWO, 20)


# ---------------------------------------------------------------- the verdict


@pytest.mark.parametrize(
    ("tuned", "own", "verdict", "said", "codes_told"),
    [
        (45, GAIN, "gain", "The gain carries over: +41.7 points on 60 rows", []),
        (45, NO_GAIN, "gain", "Tuning made the model better here: +41.7 points", []),
        (21, GAIN, "unclear", "The gain does not show here: +1.7 points", ["gain-not-elsewhere"]),
        (21, NO_GAIN, "unclear", "+1.7 points on 60 rows is not distinguishable", []),
        (2, GAIN, "loss", "Tuning made the model worse here: −30.0", ["worse-elsewhere"]),
        (2, NO_GAIN, "loss", "Tuning made the model worse here: −30.0", ["worse-elsewhere"]),
    ],
)
def test_the_verdict_says_whether_a_gain_carries_over(
    tmp_path: Path,
    tuned: int,
    own: PairedDifference,
    verdict: str,
    said: str,
    codes_told: list[str],
) -> None:
    (one,) = measured(tmp_path, MadeSet(tuned=tuned), own=own)
    assert one.verdict == verdict
    assert carries_over(one, own).startswith(said)
    assert codes([one], own) == codes_told


def test_p_is_adjusted_for_the_number_of_sets(tmp_path: Path) -> None:
    sets = [MadeSet(f"set-{i}", base=20, tuned=26) for i in range(4)]
    results = measured(tmp_path, *sets)
    assert {one.change.mcnemar_p < 0.05 for one in results} == {True}
    assert {one.adjusted_p for one in results} == {4 * results[0].change.mcnemar_p}
    assert {one.verdict for one in results} == {"unclear"}


@pytest.mark.parametrize(
    ("rows", "tuned", "words"),
    [
        (200, 58, "It is not distinguishable from the +26.0 points"),
        (1000, 30, "That is less than the +26.0 points"),
        (1000, 890, "That is more than the +26.0 points"),
    ],
)
def test_the_gain_is_compared_with_that_on_the_runs_own_rows(
    tmp_path: Path, rows: int, tuned: int, words: str
) -> None:
    (one,) = measured(tmp_path, MadeSet(rows=rows, base=0, tuned=tuned))
    assert words in carries_over(one, GAIN)


def test_the_interval_of_two_gains_is_at_least_as_wide_as_either() -> None:
    there, here = change(40, 10), change(30, 4)
    found = gains_compared(there, here)
    assert found.difference == pytest.approx(0.3 - 0.26)
    for one in (there, here):
        assert width(found.interval) > width(one.interval)
    back = gains_compared(here, there)
    assert (back.interval.low, back.interval.high) == pytest.approx(
        (-found.interval.high, -found.interval.low)
    )


def width(bounds: Interval) -> float:
    return bounds.high - bounds.low


# ---------------------------------------------------------------- rows, slices, trainings


def test_premises_are_the_units_where_they_repeat(tmp_path: Path) -> None:
    alone, shared = measured(
        tmp_path, MadeSet("alone", rows=90), MadeSet("shared", rows=90, rows_a_premise=3)
    )
    assert (alone.change.premises, shared.change.premises) == (None, 30)
    assert width(shared.change.interval) > width(alone.change.interval)


def test_further_columns_make_slices_with_up_to_fifty_values(tmp_path: Path) -> None:
    few, many = measured(
        tmp_path,
        MadeSet("few", rows=120, values=[f"v{i}" for i in range(30)]),
        MadeSet("many", rows=240, values=[f"v{i}" for i in range(60)]),
    )
    assert sum(one.family == "column" for one in few.slices) == 30
    assert not any(one.family == "column" for one in many.slices)


def test_rows_that_are_too_long_are_counted_and_left_out(tmp_path: Path) -> None:
    (one,) = measured(tmp_path, MadeSet(rows=60, too_long=12))
    assert (one.rows, one.too_long) == (48, 12)
    assert one.tuned.accuracy == 40 / 48


def test_rows_that_stand_in_training_are_told(tmp_path: Path) -> None:
    results = measured(tmp_path, MadeSet("seen", seen=3), MadeSet("new", seen=0))
    (found,) = transfer_warnings(results, GAIN)
    assert found.code == "elsewhere-in-training"
    assert found.text.startswith("5.0 % (3 of 60) of the rows of seen stand in training too")


def test_all_trainings_are_measured_and_the_kept_one_stands_for_the_run(tmp_path: Path) -> None:
    (one,) = measured(tmp_path, MadeSet(tuned=40, others={43: 10, 44: 50}))
    assert [(trial.name, trial.correct) for trial in one.trials] == [
        *(("seed-42", 40), ("seed-43", 10), ("seed-44", 50))
    ]
    assert one.tuned.correct == 40
    assert [round(trial.change.difference * 60) for trial in one.trials] == [20, -10, 30]


def test_a_run_without_a_set_has_no_figures(tmp_path: Path) -> None:
    assert measure_transfer(RunDir(tmp_path), DEMO, GAIN) == ()
