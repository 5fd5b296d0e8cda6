"""What the splits of a subset have in common, and what repeats within one.

Texts count as the same if they differ in nothing but white space: surrounding blanks, and runs of
blanks where the other has one. Case and punctuation count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from nlijob.records.job import Example, Repetition, Split, SplitOverlap
from nlijob.records.transfer import RowsInTraining

Texts = tuple[str, str]
Labels = dict[Texts, int]
"""Premise and hypothesis -> the labels with which they occur, as the sum of 2**label: a set of each
row's labels would take more memory than its texts."""
PAIRS: tuple[tuple[Split, Split], ...] = (
    ("test", "train"),
    ("test", "validation"),
    ("validation", "train"),
)
"""Rows of the first split are looked for in the second, which the model or the choice of an epoch
has seen before."""


def shared_premises(examples: Mapping[Split, Sequence[Example]]) -> dict[str, int]:
    """Pair of splits, such as "train+test" -> number of premises that occur in both."""
    premises = {split: {plain_text(e.premise) for e in rows} for split, rows in examples.items()}
    return {f"{a}+{b}": len(premises[a] & premises[b]) for a, b in combinations(premises, 2)}


def measure_overlaps(examples: Mapping[Split, Sequence[Example]]) -> tuple[SplitOverlap, ...]:
    """For each pair of splits, the rows of one that also stand in the other."""
    labels = {split: _labels(rows, map(_texts, rows)) for split, rows in examples.items()}
    return tuple(_overlap(split, other, examples[split], labels[other]) for split, other in PAIRS)


def measure_repetition(rows: Sequence[Example]) -> Repetition:
    """How often premises and whole rows repeat within a split."""
    texts = [_texts(row) for row in rows]
    labels = _labels(rows, texts)
    return Repetition(
        premises=len({premise for premise, _ in labels}),
        repeated_rows=len(rows) - len(labels),
        contradictory_rows=sum(labels[own].bit_count() > 1 for own in texts),
    )


def rows_in_training(rows: Sequence[Example], training: Sequence[Example]) -> RowsInTraining:
    """How many rows the model has seen in training, with whatever labels."""
    texts = {_texts(row) for row in training}
    premises = {premise for premise, _ in texts}
    return RowsInTraining(
        rows_with_premise=sum(plain_text(row.premise) in premises for row in rows),
        whole_rows=sum(_texts(row) in texts for row in rows),
    )


def _overlap(split: Split, other: Split, rows: Sequence[Example], others: Labels) -> SplitOverlap:
    premises = {premise for premise, _ in others}
    whole = [row for row in rows if _texts(row) in others]
    return SplitOverlap(
        split=split,
        other=other,
        rows=len(rows),
        rows_with_premise=sum(plain_text(row.premise) in premises for row in rows),
        whole_rows=len(whole),
        other_label=sum(not others[_texts(row)] >> row.label & 1 for row in whole),
        is_same=_labels(rows, map(_texts, rows)) == others,
    )


def _labels(rows: Iterable[Example], texts: Iterable[Texts]) -> Labels:
    labels: Labels = {}
    for row, own in zip(rows, texts, strict=True):
        labels[own] = labels.get(own, 0) | 1 << row.label
    return labels


def _texts(row: Example) -> Texts:
    return plain_text(row.premise), plain_text(row.hypothesis)


def plain_text(text: str) -> str:
    """A text without surrounding blanks, and with one blank for each run of white space."""
    return " ".join(text.split())
