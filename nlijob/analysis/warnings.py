"""What a reader should know before trusting the figures, in plain words with the figures beside.

Each function yields a sentence or none. The most important come first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nlijob.analysis.epoch_comparison import epochs_sentence
from nlijob.analysis.slices import slices_sentence
from nlijob.analysis.wording import (
    count,
    listed,
    p_value,
    percent,
    plural,
    points,
)
from nlijob.records import (
    SIGNIFICANT,
    ClassMetrics,
    EpochComparison,
    EpochResult,
    Manifest,
    Metrics,
    Selection,
    Slice,
)

HABIT = 0.9
"""Share of all answers from which one label counts as given nearly always."""
UNBALANCED = 1.5
"""Ratio of the most to the least frequent label from which a split counts as unbalanced."""
LOW_LABEL_MASS = 0.5
CLEAR_FALL = 0.1
"""Relative fall of the training loss that counts as going on learning."""


def comparison_warnings(base: Metrics, tuned: Metrics, gain: float, p: float) -> Iterable[str]:
    """About the two models on the test rows."""
    yield from _unclear_gain(tuned.rows, gain, p)
    yield from _one_label(base, "base")
    yield from _one_label(tuned, "tuned")
    yield from _no_better_than_one_label(tuned)
    yield from _worse_recall(base, tuned)
    yield from _low_label_mass(base)


def slice_warnings(slices: Sequence[Slice]) -> Iterable[str]:
    """About kinds of rows that tuning made worse beyond what chance explains."""
    if any(one.is_significant and one.change < 0 for one in slices):
        yield slices_sentence(slices)


def training_warnings(
    epochs: Sequence[EpochResult], selection: Selection, comparisons: Sequence[EpochComparison]
) -> Iterable[str]:
    """About the epochs and the choice between them."""
    yield from _overfitting(epochs)
    if not all(one.is_significant for one in comparisons):
        yield epochs_sentence(selection.epoch, comparisons)


def data_warnings(manifest: Manifest) -> Iterable[str]:
    """About the rows that were taken."""
    yield from manifest.warnings
    yield from _unbalanced(manifest)


def _unclear_gain(rows: int, gain: float, p: float) -> Iterable[str]:
    if p >= SIGNIFICANT:
        yield (
            f"The change of {points(gain)} on {plural(rows, 'test row')} cannot be told from no "
            f"change (McNemar {p_value(p)}; below 0.05 would count as a difference)."
        )


def habitual_label(metrics: Metrics) -> ClassMetrics | None:
    """The label that a model gives nearly always; None where there is none."""
    top = max(metrics.classes, key=lambda label: label.predicted)
    return top if top.predicted / metrics.rows >= HABIT else None


def _one_label(metrics: Metrics, model: str) -> Iterable[str]:
    if top := habitual_label(metrics):
        yield (
            f"The {model} model answered “{top.name}” for {count(top.predicted)} of "
            f"{count(metrics.rows)} test rows ({percent(top.predicted / metrics.rows)}): its "
            "accuracy is mostly that label's share of the rows."
        )


def _no_better_than_one_label(tuned: Metrics) -> Iterable[str]:
    commonest = max(tuned.classes, key=lambda label: label.support)
    if tuned.accuracy_interval.low <= commonest.support / tuned.rows:
        yield (
            f"Always answering “{commonest.name}” would be right for {count(commonest.support)} of "
            f"{count(tuned.rows)} test rows ({percent(commonest.support / tuned.rows)}); the tuned "
            "model cannot be told to be better than that."
        )


def _worse_recall(base: Metrics, tuned: Metrics) -> Iterable[str]:
    for before, after in zip(base.classes, tuned.classes, strict=True):
        hits_before = base.confusion[before.label][before.label]
        hits_after = tuned.confusion[after.label][after.label]
        if hits_after < hits_before:
            yield (
                f"Tuning found fewer of the “{before.name}” rows: {count(hits_before)} before, "
                f"{count(hits_after)} after, of {count(before.support)} (recall "
                f"{percent(hits_before / before.support)} → {percent(hits_after / after.support)})."
            )


def _low_label_mass(base: Metrics) -> Iterable[str]:
    if base.label_mass is not None and base.label_mass < LOW_LABEL_MASS:
        yield (
            f"The base model put {percent(base.label_mass)} of its probability on the "
            "label tokens (mean over test rows); left to itself it would mostly write something "
            "else. Its accuracy here compares the label tokens alone."
        )


def _overfitting(epochs: Sequence[EpochResult]) -> Iterable[str]:
    lowest = min(epochs, key=lambda epoch: epoch.validation.loss)
    last = epochs[-1]
    later = [epoch for epoch in epochs if epoch.epoch > lowest.epoch]
    still_learning = last.train_loss < lowest.train_loss * (1 - CLEAR_FALL)
    if not later or not still_learning:
        return
    before, after = (f"{epoch.validation.loss:.3f}" for epoch in (lowest, last))
    moved = f"stayed at {before}" if before == after else f"rose from {before} to {after}"
    yield (
        f"From epoch {lowest.epoch} to epoch {last.epoch} the training loss fell from "
        f"{lowest.train_loss:.3f} to {last.train_loss:.3f} while the validation loss {moved}: a "
        "sign of overfitting."
    )


def _unbalanced(manifest: Manifest) -> Iterable[str]:
    for split in manifest.splits.values():
        most, least = max(split.class_counts), min(split.class_counts)
        if most > UNBALANCED * least:
            counts = [
                f"{count(number)} {name}"
                for name, number in zip(manifest.label_names, split.class_counts, strict=True)
            ]
            yield f"Labels are unbalanced in the {split.split} rows: {listed(counts)}."
