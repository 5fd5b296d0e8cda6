"""What a reader should know before trusting the figures, the most important first.

Each finding has a code and figures for programs, and the sentence that the page and the console
show.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nlijob.analysis.epoch_comparison import epochs_sentence
from nlijob.analysis.leakage import overlap_warnings
from nlijob.analysis.slices import slices_sentence
from nlijob.analysis.wording import count, listed, p_value, percent, plural, points
from nlijob.records.job import EpochResult, Manifest, Selection
from nlijob.records.outcome import (
    SIGNIFICANT,
    ClassMetrics,
    EpochComparison,
    Finding,
    Metrics,
    Slice,
)

HABIT = 0.9
"""A label that makes up at least this share of a model's answers is its habit."""
UNBALANCED = 1.5
"""A split is unbalanced if its most frequent label has more than this many times the rows of its
least frequent one."""
LOW_LABEL_MASS = 0.5
"""Mean probability of all label tokens below which the base model's accuracy says little."""
CLEAR_FALL = 0.1
"""Smallest relative fall of the training loss that shows that the model is still learning."""


def comparison_warnings(base: Metrics, tuned: Metrics, gain: float, p: float) -> Iterable[Finding]:
    """Findings about the two models on the test rows."""
    yield from _unclear_gain(tuned.rows, gain, p)
    yield from _one_label(base, "base")
    yield from _one_label(tuned, "tuned")
    yield from _no_better_than_one_label(tuned)
    yield from _worse_recall(base, tuned)
    yield from _low_label_mass(base)


def slice_warnings(slices: Sequence[Slice]) -> Iterable[Finding]:
    """A finding if tuning made slices of the test rows significantly worse."""
    worse = sum(one.is_significant and one.change < 0 for one in slices)
    if worse:
        figures = {"worse": worse, "judged": sum(one.judged for one in slices)}
        yield Finding("slices-worse", {**figures}, slices_sentence(slices))


def training_warnings(
    epochs: Sequence[EpochResult], selection: Selection, comparisons: Sequence[EpochComparison]
) -> Iterable[Finding]:
    """Findings about the epochs and the choice between them."""
    yield from _overfitting(epochs)
    alike = [one for one in comparisons if not one.is_significant]
    if alike:
        yield Finding(
            "epochs-not-distinguishable",
            {
                "selected": selection.epoch,
                "epochs": len(alike),
                "smallest_adjusted_p": min(one.adjusted_p for one in alike),
            },
            epochs_sentence(selection.epoch, comparisons),
        )


def data_warnings(manifest: Manifest) -> Iterable[Finding]:
    """Findings about the selected rows."""
    yield from (Finding("data", {}, text) for text in manifest.warnings)
    yield from overlap_warnings(manifest)
    yield from _unbalanced(manifest)


def habitual_label(metrics: Metrics) -> ClassMetrics | None:
    """The label that the model predicts for nearly every row; None if there is none."""
    top = max(metrics.classes, key=lambda label: label.predicted)
    return top if top.predicted / metrics.rows >= HABIT else None


def _unclear_gain(rows: int, gain: float, p: float) -> Iterable[Finding]:
    if p >= SIGNIFICANT:
        yield Finding(
            "unclear-gain",
            {"gain": gain, "rows": rows, "mcnemar_p": p},
            f"The change of {points(gain)} on {plural(rows, 'test row')} is not distinguishable "
            f"from no change (McNemar {p_value(p)}; below 0.05 would count as a difference).",
        )


def _one_label(metrics: Metrics, model: str) -> Iterable[Finding]:
    if top := habitual_label(metrics):
        share = top.predicted / metrics.rows
        yield Finding(
            "one-label",
            {"model": model, "label": top.name, "answered": top.predicted, "rows": metrics.rows},
            f"The {model} model answered “{top.name}” for {count(top.predicted)} of "
            f"{count(metrics.rows)} test rows ({percent(share)}): its "
            "accuracy is mostly that label's share of the rows.",
        )


def _no_better_than_one_label(tuned: Metrics) -> Iterable[Finding]:
    commonest = max(tuned.classes, key=lambda label: label.support)
    share = commonest.support / tuned.rows
    if tuned.accuracy_interval.low <= share:
        yield Finding(
            "no-better-than-one-label",
            {"label": commonest.name, "support": commonest.support, "rows": tuned.rows},
            f"Always answering “{commonest.name}” would be right for {count(commonest.support)} of "
            f"{count(tuned.rows)} test rows ({percent(share)}); the tuned model is not "
            "distinguishably better than that.",
        )


def _worse_recall(base: Metrics, tuned: Metrics) -> Iterable[Finding]:
    for label in base.classes:
        before = base.confusion[label.label][label.label]
        after = tuned.confusion[label.label][label.label]
        if after < before:
            yield Finding(
                "worse-recall",
                {"label": label.name, "before": before, "after": after, "support": label.support},
                f"Tuning found fewer of the “{label.name}” rows: {count(before)} before, "
                f"{count(after)} after, of {count(label.support)} (recall "
                f"{percent(before / label.support)} → {percent(after / label.support)}).",
            )


def _low_label_mass(base: Metrics) -> Iterable[Finding]:
    if base.label_mass is not None and base.label_mass < LOW_LABEL_MASS:
        yield Finding(
            "low-label-mass",
            {"label_mass": base.label_mass},
            f"The base model put {percent(base.label_mass)} of its probability on the label "
            "tokens (mean over test rows); in free text it would mostly write something else. Its "
            "accuracy here compares the label tokens alone.",
        )


def _overfitting(epochs: Sequence[EpochResult]) -> Iterable[Finding]:
    lowest = min(epochs, key=lambda epoch: epoch.validation.loss)
    last = epochs[-1]
    still_learning = last.train_loss < lowest.train_loss * (1 - CLEAR_FALL)
    if last is lowest or not still_learning:
        return
    before, after = (f"{epoch.validation.loss:.3f}" for epoch in (lowest, last))
    moved = f"stayed at {before}" if before == after else f"rose from {before} to {after}"
    yield Finding(
        "overfitting",
        {
            "from_epoch": lowest.epoch,
            "to_epoch": last.epoch,
            "validation_loss_before": lowest.validation.loss,
            "validation_loss_after": last.validation.loss,
        },
        f"From epoch {lowest.epoch} to epoch {last.epoch} the training loss fell from "
        f"{lowest.train_loss:.3f} to {last.train_loss:.3f} while the validation loss {moved}: a "
        "sign of overfitting.",
    )


def _unbalanced(manifest: Manifest) -> Iterable[Finding]:
    for split in manifest.splits.values():
        most, least = max(split.class_counts), min(split.class_counts)
        if most > UNBALANCED * least:
            counts = [
                f"{count(number)} {name}"
                for name, number in zip(manifest.label_names, split.class_counts, strict=True)
            ]
            yield Finding(
                "unbalanced-labels",
                {"split": split.split, "most": most, "least": least},
                f"Labels are unbalanced in the {split.split} rows: {listed(counts)}.",
            )
