"""Figures of one model, against scikit-learn."""

from __future__ import annotations

import random

import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)

from nlijob.analysis.metrics import measure
from nlijob.records.job import Prediction
from nlijob.records.outcome import Metrics

NAMES = ("entailment", "neutral", "contradiction")


def prediction(index: int, label: int, predicted: int, mass: float | None = None) -> Prediction:
    probabilities = tuple(0.8 if answer == predicted else 0.1 for answer in range(3))
    return Prediction("test", index, label, predicted, probabilities, mass, 0.5 + index, 20)


def measured(gold: list[int], answers: list[int]) -> Metrics:
    rows = zip(gold, answers, strict=True)
    return measure([prediction(i, g, a) for i, (g, a) in enumerate(rows)], NAMES)


@pytest.fixture
def labels() -> tuple[list[int], list[int]]:
    chance = random.Random(3)
    gold = [chance.choice((0, 0, 1, 2)) for _ in range(157)]
    return gold, [g if chance.random() < 0.6 else chance.randrange(3) for g in gold]


def test_overall_figures_agree_with_scikit_learn(labels: tuple[list[int], list[int]]) -> None:
    metrics = measured(*labels)
    assert metrics.accuracy == pytest.approx(accuracy_score(*labels))
    assert metrics.balanced_accuracy == pytest.approx(balanced_accuracy_score(*labels))
    assert metrics.macro_f1 == pytest.approx(f1_score(*labels, average="macro"))


def test_figures_of_each_label_agree_with_scikit_learn(
    labels: tuple[list[int], list[int]],
) -> None:
    precision, recall, f1, support = precision_recall_fscore_support(*labels)
    for label, figures in enumerate(measured(*labels).classes):
        assert figures.precision == pytest.approx(precision[label])
        assert figures.recall == pytest.approx(recall[label])
        assert figures.f1 == pytest.approx(f1[label])
        assert figures.support == support[label]


def test_confusion_has_gold_labels_in_rows(labels: tuple[list[int], list[int]]) -> None:
    expected = confusion_matrix(*labels).tolist()
    assert [list(row) for row in measured(*labels).confusion] == expected


def test_balanced_accuracy_leaves_out_labels_without_rows() -> None:
    metrics = measured([0, 0, 1, 1], [0, 0, 1, 0])
    assert metrics.balanced_accuracy == pytest.approx(0.75)
    assert metrics.classes[2].recall is None


def test_precision_of_a_label_never_predicted_is_unknown() -> None:
    metrics = measured([0, 1, 2], [0, 1, 1])
    assert metrics.classes[2].precision is None
    assert metrics.classes[2].f1 == 0.0


def test_macro_f1_counts_a_predicted_label_without_rows() -> None:
    assert measured([0, 0, 1], [0, 2, 1]).macro_f1 == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_loss_is_the_mean_over_rows() -> None:
    assert measured([0, 1], [0, 1]).loss == pytest.approx(1.0)


def test_label_mass_is_unknown_without_a_vocabulary() -> None:
    assert measured([0], [0]).label_mass is None
    both = [prediction(0, 0, 0, mass=0.2), prediction(1, 0, 0, mass=0.4)]
    assert measure(both, NAMES).label_mass == pytest.approx(0.3)


def test_no_predictions_are_refused() -> None:
    with pytest.raises(ValueError, match="no predictions"):
        measure([], NAMES)
