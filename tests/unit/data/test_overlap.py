"""Rows that splits share, and rows that repeat within one, are counted by hand-made examples."""

from __future__ import annotations

from collections.abc import Sequence

from nlijob.data.overlap import measure_overlaps, measure_repetition, shared_premises
from nlijob.records.job import Example, Repetition, Split, SplitOverlap

Rows = Sequence[tuple[str, str, int]]


def examples(rows: Rows) -> list[Example]:
    return [Example(i, *row) for i, row in enumerate(rows)]


def overlap(split: Split, other: Split, rows: Rows, others: Rows) -> SplitOverlap:
    made: dict[Split, list[Example]] = {"train": [], "validation": [], "test": []}
    made[split], made[other] = examples(rows), examples(others)
    return next(o for o in measure_overlaps(made) if (o.split, o.other) == (split, other))


def test_premises_whole_rows_and_other_labels_are_counted_by_row() -> None:
    test = [("p", "h", 0), ("p", "h", 0), ("p", "g", 1), ("q", "h", 2), ("r", "h", 0)]
    train = [("p", "h", 0), ("q", "h", 1), ("p", "x", 2), ("z", "g", 0)]
    assert overlap("test", "train", test, train) == SplitOverlap(
        "test", "train", 5, rows_with_premise=4, whole_rows=3, other_label=1, is_same=False
    )


def test_white_space_does_not_count_but_case_does() -> None:
    others = [("A  man\tsleeps. ", "He rests.", 0)]
    assert overlap("test", "train", [(" A man sleeps.", "He\nrests.", 0)], others).whole_rows == 1
    assert overlap("test", "train", [("a man sleeps.", "He rests.", 0)], others).whole_rows == 0


def test_a_row_that_has_both_labels_in_the_other_split_has_no_other_label() -> None:
    train = [("p", "h", 0), ("p", "h", 1)]
    assert overlap("test", "train", [("p", "h", 1)], train).other_label == 0


def test_equal_splits_are_the_same_in_any_order() -> None:
    rows = [("p", "h", 0), ("q", "h", 1)]
    assert overlap("test", "validation", rows, rows[::-1]).is_same
    assert not overlap("test", "validation", rows[:1], rows).is_same
    assert not overlap("test", "validation", rows, [("p", "h", 0), ("q", "h", 2)]).is_same


def test_every_pair_is_measured() -> None:
    made: dict[Split, list[Example]] = {"train": [], "validation": [], "test": []}
    pairs = [(one.split, one.other) for one in measure_overlaps(made)]
    assert pairs == [("test", "train"), ("test", "validation"), ("validation", "train")]


def test_repetition_within_a_split() -> None:
    rows = [("p", "h", 0), ("p ", "h", 0), ("p", "h", 1), ("p", "g", 1), ("q", "h", 0)]
    assert measure_repetition(examples(rows)) == Repetition(
        premises=2, repeated_rows=2, contradictory_rows=3
    )


def test_shared_premises_count_each_premise_once() -> None:
    made: dict[Split, list[Example]] = {
        "train": examples([("p", "h", 0), ("p", "g", 0)]),
        "test": examples([(" p", "x", 0), ("p", "y", 0), ("q", "y", 0)]),
    }
    assert shared_premises(made) == {"train+test": 1}
