"""Further columns of the test rows: which are kept, with which values."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from nlijob.config import DataConfig
from nlijob.data.further import MOST_VALUES, FurtherColumns
from nlijob.data.meaning import Meaning
from nlijob.data.subset import build_subset
from nlijob.hub import Hub
from nlijob.records.job import SPLITS, Example, Manifest, Split
from nlijob.records.serialization import read_all
from nlijob.rundir import RunDir

ROWS = 12
MEANING = Meaning(DataConfig("d"), "label", frozenset({"premise", "hypothesis", "label"}), {})


def source_rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Rows with these further columns, whose values repeat."""
    return [
        {
            "premise": f"premise {i}",
            "hypothesis": f"hypothesis {i}",
            "label": i % 3,
            **{name: values[i % len(values)] for name, values in columns.items()},
        }
        for i in range(ROWS)
    ]


def write(folder: Path, suffix: str, rows: Sequence[Mapping[str, Any]]) -> None:
    for split in SPLITS:
        path = folder / f"{split}{suffix}"
        if suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        elif suffix == ".csv":
            with path.open("w", encoding="utf-8", newline="") as handle:
                writer = csv.DictWriter(handle, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def build(folder: Path, **changes: Any) -> tuple[Manifest, dict[Split, list[Example]]]:
    """The subset of a folder, all rows taken."""
    run = RunDir(folder / "run")
    data = DataConfig(
        str(folder), train_size=0, validation_size=0, test_size=0, **changes
    )  # all rows
    manifest = build_subset(data, run, Hub(True, print))
    return manifest, {split: read_all(Example, run.subset(split)) for split in SPLITS}


def kept(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, str]]:
    """The further columns that are kept of rows with these."""
    collector = FurtherColumns()
    examples = [
        Example(i, "p", "h", row["label"], collector.of(row, MEANING))
        for i, row in enumerate(source_rows(columns))
    ]
    return [row.columns for row in collector.carried(examples)]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_test_rows_of_every_format_keep_the_columns_that_could_be_categories(
    tmp_path: Path, suffix: str
) -> None:
    rows = source_rows({"genre": ["fiction", "travel"], "round": [1, 2, 3], "note": ["x" * 300]})
    write(tmp_path, suffix, rows)
    manifest, examples = build(tmp_path)
    assert examples["test"][1].columns == {"genre": "travel", "round": "2"}
    assert manifest.splits["test"].further_columns == ("genre", "round")
    assert manifest.splits["train"].further_columns == ()
    assert all(row.columns == {} for row in examples["train"])


def test_the_hash_of_the_rows_does_not_depend_on_further_columns(tmp_path: Path) -> None:
    hashes = []
    for name, columns in {"plain": {}, "more": {"genre": ["a", "b"]}}.items():
        folder = tmp_path / name
        folder.mkdir()
        write(folder, ".jsonl", source_rows(columns))
        hashes.append(build(folder)[0].splits["test"].rows_sha256)
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([True, False], ["true", "false"]),
        ([1, 2], ["1", "2"]),
        ([1.0, 2.0], ["1", "2"]),
        ([" a ", "b"], ["a", "b"]),
        (["\ud800", "b"], ["\ufffd", "b"]),
        (["نوع", "<b>"], ["نوع", "<b>"]),
    ],
)
def test_values_are_kept_as_text(values: list[Any], texts: list[str]) -> None:
    assert [row["c"] for row in kept({"c": values})[:2]] == texts


@pytest.mark.parametrize("missing", [None, float("nan"), "", "  "])
def test_a_row_without_a_value_does_not_have_the_column(missing: Any) -> None:
    assert kept({"c": ["a", "b", missing]})[:3] == [{"c": "a"}, {"c": "b"}, {}]


@pytest.mark.parametrize(
    "values",
    [
        ["one value"],
        [f"id {i}" for i in range(ROWS)],
        ["x" * 101, "b"],
        ["two\nlines", "b"],
        [0.5, 1.5],
        [["a"], ["b"]],
        [{"a": 1}, {"a": 2}],
        [10**4000, 1],
        ["a", "b", ["a list in one row"]],
    ],
)
def test_columns_that_cannot_be_categories_are_left_out(values: list[Any]) -> None:
    assert kept({"c": values}) == [{}] * ROWS


def test_columns_without_a_name_or_with_an_endless_one_are_left_out() -> None:
    assert kept({"": ["a", "b"], "n" * 101: ["a", "b"]}) == [{}] * ROWS


def test_integers_that_the_source_names_are_kept_by_name() -> None:
    meaning = MEANING._replace(class_labels={"genre": {0: "fiction", 1: "travel"}})
    collector = FurtherColumns()
    values = [collector.of({"genre": value, "round": 1}, meaning) for value in (1, 0, -1)]
    assert [one.get("genre") for one in values] == ["travel", "fiction", None]


def test_a_column_of_very_many_values_is_forgotten_at_once() -> None:
    collector = FurtherColumns()
    for i in range(MOST_VALUES + 5):
        found = collector.of({"c": str(i)}, MEANING)
    assert found == {}
    examples = [Example(i, "p", "h", 0, {"c": "early"}) for i in range(3)]
    assert all(row.columns == {} for row in collector.carried(examples))
