"""Rows that splits share or repeat, where they matter for the figures."""

from __future__ import annotations

from collections.abc import Iterable

from nlijob.analysis.wording import count, part_of, which
from nlijob.records.job import Manifest, Split, SplitManifest, SplitOverlap
from nlijob.records.outcome import Finding

LEAK_MATTERS = 0.005
"""Share of the test rows from which a leak comes before all other findings: it could move the
accuracy by half a point."""
PREMISES_MATTER = 0.05
"""Share of the test rows, with premises from training, that is worth a finding: corpora with
several hypotheses a premise share a few by nature."""
REPETITION_MATTERS = 0.01
"""Share of a split's rows, repeated or contradictory, that is worth a finding."""


def leakage_warnings(manifest: Manifest) -> Iterable[Finding]:
    """Findings about test rows that the tuned model or the selection has seen; they come first."""
    yield from _leaks(manifest, matters=True)


def overlap_warnings(manifest: Manifest) -> Iterable[Finding]:
    """Findings about smaller leaks, shared premises and repetition."""
    yield from _leaks(manifest, matters=False)
    yield from _validation_in_training(manifest)
    yield from _premises(manifest)
    for split in manifest.splits.values():
        yield from _repetition(split)


def _leaks(manifest: Manifest, matters: bool) -> Iterable[Finding]:
    for one in manifest.overlaps:
        leaked = one.split == "test" and one.whole_rows
        if leaked and (one.whole_rows >= LEAK_MATTERS * one.rows) == matters:
            yield from (_in_training(one) if one.other == "train" else _in_validation(one))


def _in_training(one: SplitOverlap) -> Iterable[Finding]:
    what = "The test rows are the training rows" if one.is_same else _whole(one, "in training")
    yield Finding(
        "test-rows-in-training",
        _figures(one),
        f"{what}: the tuned model has learned from {_them(one)}, so its "
        "accuracy and the gain are not those on new rows. Give the test split rows of its own "
        f"(data.test_split), or take {_them(one)} out of the training "
        "rows, and run again.",
    )


def _in_validation(one: SplitOverlap) -> Iterable[Finding]:
    what = (
        "The test rows are the validation rows"
        if one.is_same
        else _whole(one, "among the validation rows")
    )
    yield Finding(
        "test-rows-in-validation",
        _figures(one),
        f"{what}: the epoch is selected on {_them(one)}, so the accuracy of the selected epoch "
        "tends to be better than on new rows. Give the test split rows of its own "
        "(data.test_split) and run again.",
    )


def _validation_in_training(manifest: Manifest) -> Iterable[Finding]:
    if one := _overlap(manifest, "validation", "train"):
        if one.whole_rows < LEAK_MATTERS * one.rows or not one.whole_rows:
            return
        what = (
            "The validation rows are the training rows"
            if one.is_same
            else _whole(one, "in training")
        )
        yield Finding(
            "validation-rows-in-training",
            _figures(one),
            f"{what}: the selection prefers epochs that know the training rows by heart, and an "
            "overfitted epoch does not show.",
        )


def _premises(manifest: Manifest) -> Iterable[Finding]:
    one = _overlap(manifest, "test", "train")
    only_premise = one.rows_with_premise - one.whole_rows if one else 0
    if one and only_premise and only_premise >= PREMISES_MATTER * one.rows:
        yield Finding(
            "test-premises-in-training",
            {"rows": one.rows, "rows_with_premise": only_premise},
            f"{part_of(only_premise, one.rows, 'test row')} {which(only_premise, 'has', 'have')} a "
            "premise that also stands in training, with another hypothesis: accuracy on new "
            "premises may be lower.",
        )


def _repetition(split: SplitManifest) -> Iterable[Finding]:
    repetition = split.repetition
    if repetition is None:
        return
    least = max(1, REPETITION_MATTERS * split.rows)
    if repetition.repeated_rows >= least and split.split == "test":
        yield Finding(
            "repeated-rows",
            {"split": split.split, "repeated": repetition.repeated_rows, "rows": split.rows},
            f"{part_of(repetition.repeated_rows, split.rows, 'test row')} "
            f"{which(repetition.repeated_rows, 'repeats', 'repeat')} an earlier one and "
            f"{which(repetition.repeated_rows, 'is', 'are')} counted again, so the intervals "
            "are too narrow.",
        )
    if repetition.contradictory_rows >= least:
        yield Finding(
            "contradictory-rows",
            {
                "split": split.split,
                "contradictory": repetition.contradictory_rows,
                "rows": split.rows,
            },
            f"{part_of(repetition.contradictory_rows, split.rows, f'{split.split} row')} "
            f"{which(repetition.contradictory_rows, 'stands', 'stand')} there with more than "
            "one label: no model can be right about all of them.",
        )


def _overlap(manifest: Manifest, split: Split, other: Split) -> SplitOverlap | None:
    return next((o for o in manifest.overlaps if (o.split, o.other) == (split, other)), None)


def _whole(one: SplitOverlap, where: str) -> str:
    other = ""
    if one.other_label:
        of_them = "" if one.whole_rows == 1 else f"{count(one.other_label)} of them "
        other = f" ({of_them}with another label)"
    return (
        f"{part_of(one.whole_rows, one.rows, f'{one.split} row')} also "
        f"{which(one.whole_rows, 'stands', 'stand')} {where} with the same premise and "
        f"hypothesis{other}"
    )


def _them(one: SplitOverlap) -> str:
    """The pronoun for the rows that both splits have."""
    return "them" if one.is_same else which(one.whole_rows, "it", "them")


def _figures(one: SplitOverlap) -> dict[str, int | float | str]:
    return {"rows": one.rows, "whole_rows": one.whole_rows, "other_label": one.other_label}
