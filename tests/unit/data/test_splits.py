"""Splits of one file, by a column or by a hash, and those that are taken from training rows."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from nlijob.config import DEFAULT_LABELS, DataConfig
from nlijob.data.splits import open_splits, with_label_names
from nlijob.data.subset import build_subset
from nlijob.data.survey import divided, premise_hash
from nlijob.errors import NotAvailableError
from nlijob.hub import Hub
from nlijob.records.job import SPLITS, Split
from nlijob.rundir import RunDir

HUB = Hub(True, print)
MISSING: tuple[Split, ...] = ("validation", "test")
Rows = Sequence[Mapping[str, Any]]


def rows(count: int, labels: Sequence[Any] = (0, 1, 2), **more: Any) -> list[dict[str, Any]]:
    """`count` premises, each with all labels."""
    return [
        {"premise": f"premise {i}", "hypothesis": f"hypothesis {j}", "label": label, **more}
        for i in range(count)
        for j, label in enumerate(labels)
    ]


def write(path: Path, content: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")


def config(folder: Path, **changes: Any) -> DataConfig:
    return DataConfig(str(folder), train_size=0, validation_size=0, test_size=0, **changes)


def numbers(folder: Path, **changes: Any) -> dict[Split, list[int]]:
    """The row numbers of each split in its source."""
    opened = open_splits(config(folder, **changes), HUB)
    return {
        split: [one.number for one in opened[split].table.chosen(range(len(opened[split].table)))]
        for split in SPLITS
    }


# ---------------------------------------------------------------- by a hash of the premise


def test_a_missing_split_takes_about_a_tenth_of_the_premises_with_all_their_rows(
    tmp_path: Path,
) -> None:
    write(tmp_path / "train.jsonl", rows(300))
    found = numbers(tmp_path)
    assert sorted(n for split in SPLITS for n in found[split]) == list(range(900))
    assert {split: sorted({n // 3 for n in found[split]}) for split in SPLITS} == {
        split: sorted(n // 3 for n in found[split][::3]) for split in SPLITS
    }
    assert all(60 <= len(found[split]) <= 130 for split in MISSING)


def test_a_premise_is_in_one_split_whatever_its_white_space(tmp_path: Path) -> None:
    content = [{**row, "premise": f" {row['premise'].replace(' ', '  ')}"} for row in rows(40)]
    write(tmp_path / "train.jsonl", [*rows(40), *content])
    manifest = build_subset(config(tmp_path), RunDir(tmp_path / "run"), HUB)
    assert set(manifest.shared_premises.values()) == {0}


def test_a_premise_stays_in_its_split_if_rows_are_added(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", rows(100))
    before = numbers(tmp_path)
    write(tmp_path / "train.jsonl", rows(200))
    after = numbers(tmp_path)
    assert {s: [n for n in after[s] if n < 300] for s in SPLITS} == before


def test_only_the_missing_split_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", rows(60))
    write(tmp_path / "test.jsonl", rows(5))
    opened = open_splits(config(tmp_path), HUB)
    assert len(opened["test"].table) == 15
    assert len(opened["train"].table) + len(opened["validation"].table) == 180
    assert opened["test"].origin == ""
    premises = len(opened["validation"].table) // 3
    assert opened["validation"].origin == (
        "taken from the training rows, as there is no validation split: all rows of "
        f"{premises} of 60 premises, by a hash of the premise"
    )
    assert opened["train"].origin == "without the premises taken for validation"


def test_the_manifest_tells_where_rows_come_from(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", rows(60))
    manifest = build_subset(config(tmp_path), RunDir(tmp_path / "run"), HUB)
    test = manifest.splits["test"]
    assert "by a hash of the premise" in test.origin
    assert test.files == ("train.jsonl",)
    assert test.columns == ("premise", "hypothesis", "label")
    assert test.selected == test.source_rows


@pytest.mark.parametrize("labels", [{"label": -1}, {"label": None}, {"other": 1}])
def test_a_test_split_without_labels_is_as_good_as_missing(
    tmp_path: Path, labels: dict[str, Any]
) -> None:
    write(tmp_path / "train.jsonl", rows(60))
    texts = [{k: v for k, v in row.items() if k != "label"} for row in rows(9)]
    write(tmp_path / "test.jsonl", [{**row, **labels} for row in texts])
    opened = open_splits(config(tmp_path), HUB)
    assert "as test has no labels" in opened["test"].origin


@pytest.mark.parametrize("premises", [3, 4, 7])
def test_of_a_few_premises_each_split_has_one(premises: int) -> None:
    hashes = [premise_hash(f"premise {i}") for i in range(premises)]
    assert all(divided(hashes, MISSING).values())


def test_of_two_premises_no_two_splits_can_be_taken(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", rows(2))
    with pytest.raises(NotAvailableError, match="too few premises to take validation and test"):
        open_splits(config(tmp_path), HUB)


def test_hashes_divide_rows_by_tenths_of_their_range() -> None:
    tenth, bit = 2**64 // 10, 2**20
    found = divided([0, tenth - bit, tenth + bit, 5 * tenth, 2 * tenth - bit], MISSING)
    assert found == {
        "train": array("I", [3]),
        "validation": array("I", [0, 1]),
        "test": array("I", [2, 4]),
    }


def test_missing_columns_are_told_before_missing_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"text": "a", "claim": "b"}] * 9)
    with pytest.raises(NotAvailableError, match="the columns are text, claim"):
        open_splits(config(tmp_path), HUB)


# ---------------------------------------------------------------- by a column


@pytest.mark.parametrize(
    ("column", "values", "changes"),
    [
        ("split", ("train", "validation", "test"), {}),
        ("SemEval_set", ("TRAIN", "TRIAL", "TEST"), {}),
        ("fold", ("training", "dev", "eval"), {"split_column": "fold"}),
        ("split", ("a", "b", "c"), {f"{s}_split": v for s, v in zip(SPLITS, "abc", strict=True)}),
    ],
)
def test_a_column_may_say_whose_split_a_row_is(
    tmp_path: Path, column: str, values: Sequence[str], changes: dict[str, str]
) -> None:
    content = [row for value in values for row in rows(2, **{column: value})]
    write(tmp_path / "all.jsonl", content[::2] + content[1::2])
    opened = open_splits(config(tmp_path, **changes), HUB)
    for split, value in zip(SPLITS, values, strict=True):
        assert {row[column] for row in opened[split].table.rows} == {value}
        assert len(opened[split].table) == 6
        assert opened[split].origin == f"the rows with {column} {value}"


def test_a_split_that_no_row_has_is_taken_from_the_training_rows(tmp_path: Path) -> None:
    write(tmp_path / "all.jsonl", [*rows(9, split="test"), *rows(60, split="train")])
    found = numbers(tmp_path)
    assert found["test"] == list(range(27))
    assert sorted(found["train"] + found["validation"]) == list(range(27, 207))
    assert min(map(len, found.values())) > 0


def test_values_that_name_no_split_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "all.jsonl", [*rows(2, split="a"), *rows(2, split="b")])
    with pytest.raises(
        NotAvailableError, match=r"no row has train in column split; there are a and b"
    ):
        open_splits(config(tmp_path), HUB)


@pytest.mark.parametrize("names", [["train"], ["train", "test"]])
def test_a_column_that_is_asked_for_divides_one_file_alone(
    tmp_path: Path, names: list[str]
) -> None:
    for name in names:
        content = [row for value in ("a", "b", "c") for row in rows(2, fold=value)]
        write(tmp_path / f"{name}.jsonl", content)
    asked = {f"{s}_split": v for s, v in zip(SPLITS, "abc", strict=True)}
    data = config(tmp_path, split_column="fold", **asked)
    if len(names) == 1:
        assert len(open_splits(data, HUB)["test"].table) == 6
    else:
        with pytest.raises(NotAvailableError, match="not one file or split holds all rows"):
            open_splits(data, HUB)


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "all.jsonl", rows(9))
    with pytest.raises(NotAvailableError, match="no column fold; the columns are premise, hyp"):
        open_splits(config(tmp_path, split_column="fold"), HUB)


# ---------------------------------------------------------------- names of labels


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("entailment", "not_entailment"), ("entailment", "not_entailment")),
        (("Non-Entailment", "entails"), ("entailment", "not_entailment")),
        (("entails", "neutral"), ("entailment", "neutral")),
        (("e", "n", "c"), DEFAULT_LABELS),
        (("CONTRADICTION", "entailment"), DEFAULT_LABELS),
        ((0, 1), DEFAULT_LABELS),
        (("yes", "no"), DEFAULT_LABELS),
    ],
)
def test_known_sets_of_two_labels_name_the_classes(
    tmp_path: Path, labels: Sequence[Any], names: tuple[str, ...]
) -> None:
    write(tmp_path / "train.jsonl", rows(20, labels))
    data = config(tmp_path)
    assert with_label_names(data, open_splits(data, HUB)).label_names == names


@pytest.mark.parametrize(
    ("labels", "changes", "is_warned"),
    [
        ((0, 1), {}, True),
        (("1.0", "0", "-1"), {}, True),
        ((0, 1, 2), {}, False),
        (("entailment", "neutral"), {}, False),
        ((0, 1), {"label_names": ("yes", "no")}, False),
    ],
)
def test_two_numbers_without_a_meaning_are_a_warning(
    tmp_path: Path, labels: Sequence[Any], changes: dict[str, Any], is_warned: bool
) -> None:
    write(tmp_path / "train.jsonl", rows(40, labels))
    manifest = build_subset(config(tmp_path, **changes), RunDir(tmp_path / "run"), HUB)
    told = [warning for warning in manifest.warnings if "0 and 1 alone" in warning]
    assert bool(told) == is_warned


@pytest.mark.parametrize(
    "changes", [{"label_names": ("entailment", "other")}, {"label_map": {"not_entailment": 1}}]
)
def test_names_that_are_given_stay(tmp_path: Path, changes: dict[str, Any]) -> None:
    write(tmp_path / "train.jsonl", rows(20, ("entailment", "not_entailment")))
    data = config(tmp_path, **changes)
    assert with_label_names(data, open_splits(data, HUB)) == data


def test_one_split_with_three_labels_makes_the_set_one_of_three(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", rows(20, ("entailment", "neutral")))
    write(tmp_path / "test.jsonl", rows(20, ("entailment", "contradiction")))
    data = config(tmp_path)
    assert with_label_names(data, open_splits(data, HUB)) == data
