"""What several trainings say together."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from nlijob.analysis.trials import TrialRows, measure_trials, right_in
from nlijob.records.job import Prediction, Selection
from nlijob.records.trials import Trials
from tests.unit.analysis.made import answered, chance_answers, prediction

ROWS = 240
GOLD = [index % 3 for index in range(ROWS)]
BASE = answered(GOLD, chance_answers(GOLD, 0.5, seed=100))
APART = {index: index for index in range(ROWS)}
IN_THREES = {index: index // 3 for index in range(ROWS)}
SELECTION = Selection(2, "best validation accuracy", 0.8, 0.5, 3, (2,))


def trial(
    seed: int, accuracy: float = 0.75, predictions: Sequence[Prediction] | None = None
) -> TrialRows:
    rows = predictions or answered(GOLD, chance_answers(GOLD, accuracy, seed))
    return TrialRows(f"seed-{seed}", seed, (), SELECTION, rows, 0.6)


def together(trials: Sequence[TrialRows], premises: dict[int, int] | None = None) -> Trials:
    return measure_trials(BASE, trials, trials[0].name, premises or APART)


def with_right(seed: int, right: Sequence[bool]) -> TrialRows:
    """A training that is right on just these rows."""
    answers = [
        gold if is_right else (gold + 1) % 3 for gold, is_right in zip(GOLD, right, strict=True)
    ]
    return trial(seed, predictions=answered(GOLD, answers))


DIFFERENT = [trial(seed, accuracy) for seed, accuracy in ((1, 0.7), (2, 0.8), (3, 0.75), (4, 0.8))]


@pytest.mark.parametrize("premises", [APART, IN_THREES], ids=["apart", "in threes"])
def test_the_order_of_trainings_and_rows_changes_no_figure(premises: dict[int, int]) -> None:
    shuffled = list(BASE)
    random.Random(1).shuffle(shuffled)
    turned = [
        replace(one, predictions=random.Random(one.seed).sample(list(one.predictions), ROWS))
        for one in reversed(DIFFERENT)
    ]
    first = measure_trials(BASE, DIFFERENT, "seed-2", premises)
    second = measure_trials(shuffled, turned, "seed-2", premises)
    assert replace(second, trials=second.trials[::-1]) == first


def test_figures_of_a_training_are_those_of_its_predictions() -> None:
    found = together(DIFFERENT, IN_THREES)
    assert [one.name for one in found.trials] == [one.name for one in DIFFERENT]
    for outcome, made in zip(found.trials, DIFFERENT, strict=True):
        right = sum(row.is_right for row in made.predictions)
        assert (outcome.rows, outcome.correct, outcome.accuracy) == (ROWS, right, right / ROWS)
        assert outcome.loss == made.loss
        given = [row.predicted for row in made.predictions]
        assert outcome.answers == tuple(given.count(label) for label in range(3))
    assert found.premises == ROWS // 3
    assert together(DIFFERENT).premises is None


def test_the_mean_is_over_trainings_and_lies_between_the_extremes() -> None:
    found = together(DIFFERENT)
    accuracies = [one.accuracy for one in found.trials]
    assert found.accuracy.mean == pytest.approx(np.mean(accuracies))
    assert (found.accuracy.lowest, found.accuracy.highest) == (min(accuracies), max(accuracies))
    base = sum(row.is_right for row in BASE) / ROWS
    assert found.gain.mean == pytest.approx(found.accuracy.mean - base)
    assert found.gain.lowest == pytest.approx(found.accuracy.lowest - base)
    assert found.accuracy.interval.low < found.accuracy.mean < found.accuracy.interval.high


def test_copies_of_one_training_say_what_it_says_alone() -> None:
    one = trial(1)
    found = together([replace(one, name=name) for name in "abc"])
    (alone, *_) = found.trials
    assert found.accuracy.mean == found.accuracy.lowest == found.accuracy.highest
    assert found.accuracy.interval.low == pytest.approx(alone.accuracy_interval.low)
    assert found.gain.interval.high == pytest.approx(alone.change.interval.high)
    assert (found.variance.trainings, found.variance.both, found.variance.rows) == (0, 0, 1)
    assert found.rows.disagreement == found.rows.in_some == 0
    assert (found.ensemble.correct, found.ensemble.over_kept.difference) == (alone.correct, 0)
    assert found.far_off == ()


def test_rows_are_counted_by_the_trainings_that_are_right() -> None:
    trials = [with_right(k, [index % 4 > k for index in range(ROWS)]) for k in range(3)]
    rows = together(trials).rows
    assert rows.counts == (ROWS // 4,) * 4
    assert (rows.in_none, rows.in_some, rows.in_all) == (ROWS // 4, ROWS // 2, ROWS // 4)
    base = [row.is_right for row in BASE]
    assert rows.corrected_in_all == base[3::4].count(False)
    assert rows.broken_in_all == base[0::4].count(True)
    assert right_in(trials) == {index: index % 4 for index in range(ROWS)}


def test_disagreement_is_the_mean_over_all_pairs_of_trainings() -> None:
    given = [[row.predicted for row in one.predictions] for one in DIFFERENT]
    shares = [
        sum(a != b for a, b in zip(first, second, strict=True)) / ROWS
        for place, first in enumerate(given)
        for second in given[place + 1 :]
    ]
    assert together(DIFFERENT).rows.disagreement == pytest.approx(np.mean(shares))


# ---------------------------------------------------------------- helped and harmed


def test_helped_and_harmed_count_trainings_beyond_chance_after_holms_correction() -> None:
    base = [row.is_right for row in BASE]
    wrong = [index for index in range(ROWS) if not base[index]]

    def corrected(seed: int, rows: int) -> TrialRows:
        return with_right(seed, [r or i in wrong[:rows] for i, r in enumerate(base)])

    # 6 rows: p = 0.03, which alone would count
    found = together([corrected(1, 6), corrected(2, 6), corrected(3, 40), trial(4, 0.2)])
    plain = [one.change.mcnemar_p for one in found.trials]
    expected = multipletests(plain, method="holm")[1]
    assert [one.adjusted_p for one in found.trials] == pytest.approx(list(expected))
    assert plain[0] < 0.05 < expected[0]
    assert (found.helped, found.harmed) == (1, 1)


# ---------------------------------------------------------------- the ensemble


def of_probabilities(seed: int, *rows: tuple[float, float, float]) -> TrialRows:
    """A training with these probabilities in the first rows, and right in all others."""
    made = [prediction(index, GOLD[index], GOLD[index]) for index in range(ROWS)]
    for index, chances in enumerate(rows):
        best = max(range(3), key=chances.__getitem__)
        made[index] = replace(made[index], predicted=best, probabilities=chances)
    return trial(seed, predictions=made)


def test_the_ensemble_answers_by_mean_probability_and_not_by_vote() -> None:
    unsure = (0.3, 0.4, 0.3)  # row 0 has label 0: two trainings are wrong, but not sure
    found = together(
        [of_probabilities(k, unsure) for k in (1, 2)] + [of_probabilities(3, (1, 0, 0))]
    )
    assert (found.ensemble.correct, found.trials[0].correct) == (ROWS, ROWS - 1)
    assert found.ensemble.accuracy == 1
    assert (found.ensemble.over_kept.gained, found.ensemble.over_kept.lost) == (1, 0)


def test_a_tie_of_the_ensemble_goes_to_the_label_that_most_trainings_give() -> None:
    # row 1 has label 1; labels 1 and 2 have the same mean probability
    first, second = (0.0, 1.0, 0.0), (0.0, 0.25, 0.75)
    thirds = (0.0, 0.25, 0.75)
    trials = [of_probabilities(k, (1, 0, 0), p) for k, p in enumerate((first, second, thirds))]
    assert together(trials).ensemble.correct == ROWS - 1
    trials = [of_probabilities(k, (1, 0, 0), p) for k, p in enumerate((first, (0.0, 0.0, 1.0)))]
    assert together(trials).ensemble.correct == ROWS


# ---------------------------------------------------------------- far off


def test_a_training_that_fell_far_behind_is_named() -> None:
    assert together([*DIFFERENT, trial(5, 0.34)]).far_off == ("seed-5",)
    assert together(DIFFERENT).far_off == ()


def test_two_trainings_do_not_tell_which_of_them_is_far_off() -> None:
    assert together([trial(1, 0.8), trial(2, 0.34)]).far_off == ()


def test_trainings_in_two_camps_are_not_far_off() -> None:
    assert together([trial(1, 0.8), trial(2, 0.8), trial(3, 0.4), trial(4, 0.4)]).far_off == ()


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("trials", "kept", "fault"),
    [
        ([trial(1)], "seed-1", "nothing to say together"),
        ([trial(1), trial(2)], "seed-3", "no training is named"),
        ([trial(1), trial(2, predictions=BASE[:5])], "seed-1", "labelled by one model only"),
    ],
    ids=["one training", "unknown name", "other rows"],
)
def test_trainings_that_do_not_fit_together_are_refused(
    trials: list[TrialRows], kept: str, fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        measure_trials(BASE, trials, kept, APART)
