"""What to know before trusting the figures of several trainings."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scipy.stats import chi2

from nlijob.analysis.trial_warnings import LARGEST_SPREAD, trial_warnings
from nlijob.records.outcome import Finding
from nlijob.records.trials import Trials
from tests.unit.analysis.made import NAMES, trainings

FIVE = (0.72, 0.76, 0.75, 0.79, 0.75)


def found(trials: Trials | None, code: str = "") -> list[Finding]:
    return [one for one in trial_warnings(trials, NAMES) if code in ("", one.code)]


def test_one_training_has_no_warnings_here() -> None:
    assert found(None) == []


def test_five_alike_trainings_have_none() -> None:
    assert found(trainings(FIVE)) == []


def test_trainings_that_differ_in_direction_are_told_with_how_many_are_beyond_chance() -> None:
    (warning,) = found(trainings((0.75, 0.75, 0.2, 0.75, 0.44)), "trainings-differ-in-direction")
    assert warning.figures == {"better": 3, "worse": 2, "helped": 3, "harmed": 1}
    assert warning.text == (
        "Of 5 trainings, 3 made the model better on the test rows (3 beyond chance) and 2 made it "
        "worse (1 beyond chance)."
    )


def test_a_training_far_off_is_named_with_the_range_of_the_others() -> None:
    (warning,) = found(trainings((*FIVE, 0.55)), "training-far-off")
    assert warning.figures["training"] == "seed-6"
    assert "far off the others: accuracy" in warning.text


def test_a_training_that_answers_one_label_is_named_with_the_label() -> None:
    trials = trainings(FIVE)
    fallen = replace(trials.trials[2], answers=(230, 10, 0))
    changed = replace(trials, trials=(*trials.trials[:2], fallen, *trials.trials[3:]))
    (warning,) = found(changed, "training-one-label")
    assert warning.text == (
        "The training seed-3 answers “entailment” for at least 90 % of the test rows."
    )
    assert found(replace(changed, kept="seed-3"), "training-one-label") == []


@pytest.mark.parametrize("number", [2, 3, 4])
def test_few_trainings_do_not_tell_their_spread(number: int) -> None:
    (warning,) = found(trainings(FIVE[:number]), "few-trainings")
    ratio = ((number - 1) / chi2.ppf(0.025, number - 1)) ** 0.5
    assert LARGEST_SPREAD[number] == pytest.approx(ratio, abs=0.05)
    assert f"{number} trainings hardly tell how much trainings differ" in warning.text
    often = "many" if number == 2 else f"up to {LARGEST_SPREAD[number]:g}"
    assert f"the true one may be {often} times as large" in warning.text


def test_few_trainings_of_the_same_accuracy_are_not_said_to_have_no_spread() -> None:
    trials = trainings(FIVE[:3])
    same = replace(trials, trials=tuple(replace(one, accuracy=0.75) for one in trials.trials))
    (warning,) = found(same, "few-trainings")
    assert "does not show that those of others are" in warning.text
