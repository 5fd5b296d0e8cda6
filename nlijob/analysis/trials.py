"""What several trainings of one recipe say together, from their predictions on the test rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlijob.analysis.cases import pairs
from nlijob.analysis.clustered import accuracy_interval, paired_difference, premises_as_units
from nlijob.analysis.crossed import CrossedMean, mean_accuracy, mean_gain, variance_shares
from nlijob.analysis.premises import Premises
from nlijob.analysis.statistics import holm
from nlijob.records.job import EpochResult, Prediction, Selection
from nlijob.records.outcome import SIGNIFICANT
from nlijob.records.trials import Ensemble, Expected, RowsAcross, TrialOutcome, Trials

Array = NDArray[Any]
FEWEST_FOR_FAR_OFF = 3
"""Fewest trainings of which one can be far off the others."""
FAR_OFF = 0.05
"""Smallest distance (0 to 1) in accuracy of a training that is far off."""
FAR_OFF_RANGES = 3
"""The distance is also more than this many times the range of the others."""


@dataclass(frozen=True)
class TrialRows:
    """One training and its tuned model's answers to the test rows."""

    name: str
    seed: int
    epochs: tuple[EpochResult, ...]
    selection: Selection
    predictions: Sequence[Prediction]
    """For the test rows, in any order."""
    loss: float
    """Mean cross-entropy on the test rows in nats."""


def measure_trials(
    base: Sequence[Prediction], trials: Sequence[TrialRows], kept: str, premises: Premises
) -> Trials:
    """What several trainings say together; `kept` is the name of the one whose adapter is kept.

    Raises ValueError if there are fewer than two trainings, if none is named `kept`, or if models
    labelled different rows; KeyError if the premise of a row is missing.
    """
    if len(trials) < 2:
        raise ValueError(f"{len(trials)} training: nothing to say together")
    answers = _Answers.of(base, trials, premises)
    accuracy = mean_accuracy(answers.right, answers.premises)
    gain = mean_gain(answers.right, answers.base_right, answers.premises)
    outcomes = _outcomes(trials, answers)
    changes = [one.change.difference for one in outcomes]
    beyond_chance = [
        change > 0
        for change, one in zip(changes, outcomes, strict=True)
        if one.adjusted_p is not None and one.adjusted_p < SIGNIFICANT
    ]
    return Trials(
        trials=outcomes,
        kept=kept,
        accuracy=_expected([one.accuracy for one in outcomes], accuracy),
        gain=_expected(changes, gain),
        helped=sum(beyond_chance),
        harmed=len(beyond_chance) - sum(beyond_chance),
        variance=variance_shares(accuracy),
        rows=_rows_across(answers),
        ensemble=_ensemble(answers, _place(trials, kept)),
        premises=premises_as_units(answers.premises),
        far_off=_far_off(answers, [one.name for one in trials]),
    )


def right_in(trials: Sequence[TrialRows]) -> dict[int, int]:
    """Row number of each test row -> number of trainings that label it correctly."""
    counts: Counter[int] = Counter()
    for trial in trials:
        counts.update({row.index: int(row.is_right) for row in trial.predictions})
    return dict(counts)


@dataclass(frozen=True)
class _Answers:
    """The answers of all models to the same test rows, in row order."""

    gold: Array
    """Label of each row, [rows]."""
    base_right: Array
    """Whether the base model is right, [rows]."""
    given: Array
    """The trainings' answers, [trainings, rows]."""
    probabilities: Array
    """[trainings, rows, labels]"""
    premises: list[int]
    """Premise number of each row."""

    @staticmethod
    def of(base: Sequence[Prediction], trials: Sequence[TrialRows], premises: Premises) -> _Answers:
        """The answers of the base model and of all trainings."""
        matched = [pairs(base, trial.predictions) for trial in trials]
        rows = [pair.base for pair in matched[0]]
        tuned = [[pair.tuned for pair in of_trial] for of_trial in matched]
        return _Answers(
            gold=np.array([row.label for row in rows]),
            base_right=np.array([row.is_right for row in rows]),
            given=np.array([[row.predicted for row in of_trial] for of_trial in tuned]),
            probabilities=np.array([[row.probabilities for row in of_trial] for of_trial in tuned]),
            premises=[premises[row.index] for row in rows],
        )

    @property
    def right(self) -> Array:
        """What each training is right on, [trainings, rows]."""
        return np.asarray(self.given == self.gold)

    @property
    def frequencies(self) -> Array:
        """How many trainings give each label, [rows, labels]."""
        labels = np.arange(self.probabilities.shape[2])
        return np.asarray((self.given[:, :, None] == labels).sum(axis=0))


def _outcomes(trials: Sequence[TrialRows], answers: _Answers) -> tuple[TrialOutcome, ...]:
    base = answers.base_right.tolist()
    labels = answers.probabilities.shape[2]
    rights = [row.tolist() for row in answers.right]
    changes = [paired_difference(right, base, answers.premises) for right in rights]
    adjusted = holm([change.mcnemar_p for change in changes])
    return tuple(
        TrialOutcome(
            name=trial.name,
            seed=trial.seed,
            epochs=trial.epochs,
            selection=trial.selection,
            rows=len(right),
            correct=sum(right),
            accuracy=sum(right) / len(right),
            accuracy_interval=accuracy_interval(right, answers.premises),
            loss=trial.loss,
            change=change,
            adjusted_p=p,
            answers=tuple(np.bincount(given, minlength=labels).tolist()),
        )
        for trial, right, change, p, given in zip(
            trials, rights, changes, adjusted, answers.given, strict=True
        )
    )


def _expected(figures: Sequence[float], mean: CrossedMean) -> Expected:
    return Expected(
        mean=float(np.mean(sorted(figures))),
        interval=mean.interval(),
        another=mean.another(),
        lowest=min(figures),
        highest=max(figures),
    )


def _rows_across(answers: _Answers) -> RowsAcross:
    trainings, rows = answers.given.shape
    right = answers.right.sum(axis=0)
    counts = np.bincount(right, minlength=trainings + 1).tolist()
    frequencies = answers.frequencies
    # pairs of trainings that give the same label, over all rows and labels
    alike = int((frequencies * (frequencies - 1) // 2).sum())
    every_pair = rows * trainings * (trainings - 1) // 2
    return RowsAcross(
        in_all=counts[-1],
        in_some=rows - counts[0] - counts[-1],
        in_none=counts[0],
        counts=tuple(counts),
        corrected_in_all=int((~answers.base_right & (right == trainings)).sum()),
        broken_in_all=int((answers.base_right & (right == 0)).sum()),
        disagreement=(every_pair - alike) / every_pair,
    )


def _ensemble(answers: _Answers, kept: int) -> Ensemble:
    right = (_ensemble_answers(answers) == answers.gold).tolist()
    return Ensemble(
        rows=len(right),
        correct=sum(right),
        accuracy=sum(right) / len(right),
        accuracy_interval=accuracy_interval(right, answers.premises),
        over_kept=paired_difference(right, answers.right[kept].tolist(), answers.premises),
    )


def _ensemble_answers(answers: _Answers) -> Array:
    """The label with the highest mean probability, [rows].

    Of labels with the same mean, it is the one that most trainings give, then the first.
    """
    # sorted, so that the order of the trainings changes nothing
    means = np.sort(answers.probabilities, axis=0).mean(axis=0)
    best = means == means.max(axis=1, keepdims=True)
    return np.asarray(np.where(best, answers.frequencies, -1).argmax(axis=1))


def _far_off(answers: _Answers, names: Sequence[str]) -> tuple[str, ...]:
    """The trainings whose accuracy is far off all others, and beyond chance."""
    if len(names) < FEWEST_FOR_FAR_OFF:
        return ()
    right = answers.right
    accuracies = right.mean(axis=1)
    found = []
    for place, name in enumerate(names):
        others = np.delete(accuracies, place)
        nearest = min(
            (other for other in range(len(names)) if other != place),
            key=lambda other: (abs(accuracies[other] - accuracies[place]), right[other].tobytes()),
        )
        distance = abs(float(accuracies[nearest] - accuracies[place]))
        if distance <= max(FAR_OFF, FAR_OFF_RANGES * float(np.ptp(others))):
            continue
        change = paired_difference(right[place].tolist(), right[nearest].tolist(), answers.premises)
        if change.mcnemar_p < SIGNIFICANT / len(names):
            found.append(name)
    return tuple(found)


def _place(trials: Sequence[TrialRows], name: str) -> int:
    for place, trial in enumerate(trials):
        if trial.name == name:
            return place
    raise ValueError(f"no training is named {name}")
