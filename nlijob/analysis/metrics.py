"""Accuracy metrics of one model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nlijob.analysis.calibration import calibration
from nlijob.analysis.clustered import accuracy_interval
from nlijob.analysis.premises import Premises, premise_numbers
from nlijob.records.job import Prediction
from nlijob.records.outcome import ClassMetrics, Metrics

Confusion = tuple[tuple[int, ...], ...]


def measure(
    predictions: Sequence[Prediction],
    label_names: Sequence[str],
    premises: Premises | None = None,
) -> Metrics:
    """All metrics of one model on the rows of one split, of which some may share `premises`.

    Balanced accuracy is the mean recall over labels that have rows. Macro F1 is the mean F1 over
    labels that have rows or were predicted; F1 is 0 for a label never predicted correctly. Raises
    ValueError if there are no rows.
    """
    if not predictions:
        raise ValueError("no predictions to measure")
    confusion = _confusion(predictions, len(label_names))
    rows = len(predictions)
    correct = sum(confusion[label][label] for label in range(len(label_names)))
    classes = tuple(_class(confusion, label, name) for label, name in enumerate(label_names))
    return Metrics(
        rows=rows,
        correct=correct,
        accuracy=correct / rows,
        accuracy_interval=accuracy_interval(
            [row.is_right for row in predictions], premise_numbers(predictions, premises)
        ),
        balanced_accuracy=_mean(c.recall for c in classes if c.recall is not None),
        calibration=calibration(predictions, premises),
        macro_f1=_mean(c.f1 for c in classes if c.support or c.predicted),
        loss=_mean(prediction.loss for prediction in predictions),
        label_mass=_mean_label_mass(predictions),
        confusion=confusion,
        classes=classes,
    )


def _confusion(predictions: Iterable[Prediction], labels: int) -> Confusion:
    counts = [[0] * labels for _ in range(labels)]
    for prediction in predictions:
        counts[prediction.label][prediction.predicted] += 1
    return tuple(tuple(row) for row in counts)


def _class(confusion: Confusion, label: int, name: str) -> ClassMetrics:
    hits = confusion[label][label]
    support = sum(confusion[label])
    predicted = sum(row[label] for row in confusion)
    return ClassMetrics(
        label=label,
        name=name,
        support=support,
        predicted=predicted,
        precision=hits / predicted if predicted else None,
        recall=hits / support if support else None,
        f1=2 * hits / (support + predicted) if support + predicted else 0.0,
    )


def _mean_label_mass(predictions: Iterable[Prediction]) -> float | None:
    masses = [p.label_mass for p in predictions if p.label_mass is not None]
    return _mean(masses) if masses else None


def _mean(values: Iterable[float]) -> float:
    items = list(values)
    return sum(items) / len(items)
