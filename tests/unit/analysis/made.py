"""Synthetic predictions for the tests of the analysis."""

from __future__ import annotations

import random
from collections.abc import Sequence

from nlijob.analysis.trials import TrialRows, measure_trials
from nlijob.records.job import Prediction, Selection, Split
from nlijob.records.trials import Trials

NAMES = ("entailment", "neutral", "contradiction")


def prediction(
    index: int, label: int, predicted: int, confidence: float = 0.8, split: Split = "test"
) -> Prediction:
    """A prediction; the other labels share the rest of the probability."""
    rest = (1 - confidence) / 2
    probabilities = tuple(confidence if answer == predicted else rest for answer in range(3))
    return Prediction(split, index, label, predicted, probabilities, None, 0.5, 20)


def answered(
    gold: Sequence[int], answers: Sequence[int], split: Split = "test"
) -> list[Prediction]:
    """A row for each gold label and answer, numbered from 0."""
    rows = enumerate(zip(gold, answers, strict=True))
    return [prediction(i, label, answer, split=split) for i, (label, answer) in rows]


def chance_answers(gold: Sequence[int], accuracy: float, seed: int) -> list[int]:
    """Answers that are right with the given chance and else evenly wrong."""
    chance = random.Random(seed)
    return [
        label if chance.random() < accuracy else (label + chance.randint(1, 2)) % 3
        for label in gold
    ]


def trainings(accuracies: Sequence[float], rows: int = 240, kept: str = "seed-1") -> Trials:
    """What trainings named seed-1, seed-2, ... of these accuracies say together.

    The base model is right on half of the rows.
    """
    gold = [index % 3 for index in range(rows)]
    selection = Selection(2, "best validation accuracy", 0.8, 0.5, 3, (2,))
    trials = [
        TrialRows(
            f"seed-{seed}",
            seed,
            (),
            selection,
            answered(gold, chance_answers(gold, accuracy, seed)),
            0.6,
        )
        for seed, accuracy in enumerate(accuracies, start=1)
    ]
    base = answered(gold, chance_answers(gold, 0.5, seed=100))
    return measure_trials(base, trials, kept, {index: index for index in range(rows)})
