"""What a reader should know before trusting the figures, the most important first.

Each finding has a code and figures for programs, and the sentence that the page and the console
show.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nlijob.analysis.epoch_comparison import epochs_sentence
from nlijob.analysis.leakage import overlap_warnings
from nlijob.analysis.slices import slices_sentence
from nlijob.analysis.wording import (
    count,
    listed,
    loss,
    mcnemar_name,
    p_value,
    part_of,
    percent,
    plural,
    points,
    points_interval,
)
from nlijob.records.intervals import PairedDifference
from nlijob.records.job import EpochResult, Manifest, PromptRecord, Selection
from nlijob.records.outcome import (
    SIGNIFICANT,
    ClassMetrics,
    EpochComparison,
    Finding,
    LossChange,
    Metrics,
    PremiseGroups,
    Slice,
)
from nlijob.records.trials import Trials

HABIT = 0.9
"""A label that makes up at least this share of a model's answers is its habit."""
UNBALANCED = 1.5
"""A split is unbalanced if its most frequent label has more than this many times the rows of its
least frequent one."""
LOW_LABEL_MASS = 0.5
"""Mean probability of all label tokens below which the base model's accuracy says little."""
CLEAR_FALL = 0.1
"""Smallest relative fall of the training loss that shows that the model is still learning."""


def comparison_warnings(
    base: Metrics,
    tuned: Metrics,
    change: PairedDifference,
    slices: Sequence[Slice],
    trials: Trials | None = None,
) -> Iterable[Finding]:
    """Findings about the two models on the test rows; `change` is that of their accuracy.

    With several trainings, that of the mean over them takes its place.
    """
    if trials is None:
        yield from _unclear_gain(tuned.rows, change)
    else:
        yield from _unclear_mean(tuned.rows, trials)
    yield from _one_label(base, "base")
    yield from _one_label(tuned, "tuned")
    yield from _worse_recall(slices)
    yield from _low_label_mass(base)


def premise_warnings(groups: PremiseGroups) -> Iterable[Finding]:
    """A finding if all test rows share one premise."""
    if groups.premises == 1 < groups.rows:
        yield Finding(
            "one-premise",
            {"rows": groups.rows},
            f"All {count(groups.rows)} test rows have the same premise, so the intervals and tests "
            "are about hypotheses for this premise and not about other premises.",
        )


def slice_warnings(slices: Sequence[Slice]) -> Iterable[Finding]:
    """A finding if tuning made slices of the test rows significantly worse."""
    worse = sum(one.is_significant and one.change < 0 for one in slices)
    if worse:
        figures = {"worse": worse, "judged": sum(one.judged for one in slices)}
        yield Finding("slices-worse", {**figures}, slices_sentence(slices))


def training_warnings(
    epochs: Sequence[EpochResult],
    selection: Selection,
    comparisons: Sequence[EpochComparison],
    change: LossChange | None,
) -> Iterable[Finding]:
    """Findings about the epochs and the choice between them; `change` is of the validation loss."""
    yield from _overfitting(epochs, change)
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


def length_warnings(prompt: PromptRecord, manifest: Manifest) -> Iterable[Finding]:
    """A finding if rows were left out because they are too long for the model."""
    dropped = {split: len(rows) for split, rows in prompt.dropped.items()}
    if dropped:
        shares = [
            f"{count(number)} of {plural(manifest.splits[split].rows, f'{split} row')}"
            for split, number in dropped.items()
        ]
        yield Finding(
            "rows-too-long",
            {**dropped, "max_length": prompt.max_length},
            f"Left out as longer than {count(prompt.max_length)} tokens: {listed(shares)} "
            "(model.too_long). All figures are about the rows that are left.",
        )


def habitual_label(metrics: Metrics) -> ClassMetrics | None:
    """The label that the model predicts for nearly every row; None if there is none."""
    top = max(metrics.classes, key=lambda label: label.predicted)
    return top if top.predicted / metrics.rows >= HABIT else None


def _unclear_gain(rows: int, change: PairedDifference) -> Iterable[Finding]:
    if change.mcnemar_p >= SIGNIFICANT:
        yield Finding(
            "unclear-gain",
            {"gain": change.difference, "rows": rows, "mcnemar_p": change.mcnemar_p},
            f"The change of {points(change.difference)} on {plural(rows, 'test row')} is not "
            f"distinguishable from no change ({mcnemar_name(change.premises)}, "
            f"{p_value(change.mcnemar_p)}; below 0.05 would count as a difference).",
        )


def _unclear_mean(rows: int, trials: Trials) -> Iterable[Finding]:
    gain, number = trials.gain, len(trials.trials)
    if gain.interval.low <= 0 <= gain.interval.high:
        yield Finding(
            "unclear-gain",
            {"gain": gain.mean, "rows": rows, "trainings": number},
            f"The mean change of {points(gain.mean)} over {plural(number, 'training')} on "
            f"{plural(rows, 'test row')} is not distinguishable from no change (95 % interval "
            f"{points_interval(gain.interval)}, for other trainings and other rows).",
        )


def _one_label(metrics: Metrics, model: str) -> Iterable[Finding]:
    if top := habitual_label(metrics):
        yield Finding(
            "one-label",
            {"model": model, "label": top.name, "answered": top.predicted, "rows": metrics.rows},
            f"The {model} model answered “{top.name}” for "
            f"{part_of(top.predicted, metrics.rows, 'test row')}; it is the gold label of "
            f"{plural(top.support, 'row')}.",
        )


def _worse_recall(slices: Sequence[Slice]) -> Iterable[Finding]:
    """A finding for each gold label that lost rows, with its test from the table of slices."""
    for label in slices:
        if label.family == "gold label" and label.change < 0:
            before, after, rows = label.base_correct, label.tuned_correct, label.rows
            tested = {} if label.adjusted_p is None else {"adjusted_p": label.adjusted_p}
            yield Finding(
                "worse-recall",
                {"label": label.key, "before": before, "after": after, "support": rows, **tested},
                f"Tuning found fewer of the “{label.key}” rows: {count(before)} before, "
                f"{count(after)} after, of {count(rows)} (recall {percent(before / rows)} → "
                f"{percent(after / rows)}; {_tested(label)}).",
            )


def _tested(found: Slice) -> str:
    if found.adjusted_p is None:
        return "too few rows for a test"
    outcome = "significant" if found.is_significant else "not significant"
    return f"{outcome}, adjusted {p_value(found.adjusted_p)}"


def _low_label_mass(base: Metrics) -> Iterable[Finding]:
    if base.label_mass is not None and base.label_mass < LOW_LABEL_MASS:
        yield Finding(
            "low-label-mass",
            {"label_mass": base.label_mass},
            f"The base model put {percent(base.label_mass)} of its probability on the label "
            "tokens (mean over test rows); in free text it would mostly write something else. Its "
            "accuracy here compares the label tokens alone.",
        )


def _overfitting(epochs: Sequence[EpochResult], change: LossChange | None) -> Iterable[Finding]:
    if change is None or not change.is_significant:
        return
    by_number = {epoch.epoch: epoch for epoch in epochs}
    lowest, last = by_number[change.from_epoch], by_number[change.to_epoch]
    if last.train_loss >= lowest.train_loss * (1 - CLEAR_FALL):
        return
    yield Finding(
        "overfitting",
        {
            "from_epoch": lowest.epoch,
            "to_epoch": last.epoch,
            "validation_loss_before": lowest.validation.loss,
            "validation_loss_after": last.validation.loss,
            "adjusted_p": change.adjusted_p,
        },
        f"From epoch {lowest.epoch} to epoch {last.epoch} the training loss fell from "
        f"{loss(lowest.train_loss)} to {loss(last.train_loss)} while the validation loss rose from "
        f"{loss(lowest.validation.loss)} to {loss(last.validation.loss)} (sign-flip test on "
        f"{plural(change.rows, 'row')}, adjusted {p_value(change.adjusted_p)}): a sign of "
        "overfitting.",
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
