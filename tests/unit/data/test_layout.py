"""Which files hold a split, whoever laid them out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from nlijob.config import DataConfig
from nlijob.data.layout import find_groups, split_names
from nlijob.data.sources import source_of, source_stamp
from nlijob.data.splits import open_splits
from nlijob.errors import NotAvailableError
from nlijob.hub import Hub
from nlijob.records.job import SPLITS, Split

HUB = Hub(True, print)


def rows(split: str, count: int = 3) -> list[dict[str, Any]]:
    return [{"premise": f"{split} {i}", "hypothesis": "b", "label": i % 3} for i in range(count)]


def write(path: Path, content: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(content)), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(content), encoding="utf-8")
    elif path.suffix == ".csv":
        lines = ["premise,hypothesis,label", *(",".join(map(str, r.values())) for r in content)]
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")


def premises(folder: Path, **changes: Any) -> dict[Split, list[str]]:
    """The premises of each split of a folder."""
    opened = open_splits(DataConfig(str(folder), **changes), HUB)
    return {split: [row["premise"] for row in opened[split].table.rows] for split in SPLITS}


def refusal(folder: Path, **changes: Any) -> NotAvailableError:
    with pytest.raises(NotAvailableError) as caught:
        premises(folder, **changes)
    return caught.value


@pytest.mark.parametrize(
    "form",
    [
        "{}.jsonl",
        "{}.json",
        "{}.ndjson",
        "{}.csv",
        "{}.parquet",
        "data/{}-00000-of-00001.parquet",
        "plain_text/{}-00000-of-00001.parquet",
        "plain_text/{}/0000.parquet",
        "{}/data.jsonl",
        "{}/part-0.parquet",
        "my_corpus_v2.{}.jsonl",
        "MyCorpus-{}-final.json",
    ],
)
def test_a_split_is_found_wherever_its_name_stands(tmp_path: Path, form: str) -> None:
    for split in SPLITS:
        write(tmp_path / form.format(split), rows(split))
    write(tmp_path / "README.jsonl", [{"not": "data"}])
    assert premises(tmp_path) == {split: [f"{split} {i}" for i in range(3)] for split in SPLITS}


@pytest.mark.parametrize(
    ("validation", "test"),
    [("dev", "test"), ("val", "eval"), ("trial", "Test"), ("DEV", "testing")],
)
def test_other_names_of_a_split_are_known(tmp_path: Path, validation: str, test: str) -> None:
    names = {"train": "Train", "validation": validation, "test": test}
    for split, name in names.items():
        write(tmp_path / f"{name}.jsonl", rows(split))
    assert premises(tmp_path) == {split: [f"{split} {i}" for i in range(3)] for split in SPLITS}


@pytest.mark.parametrize(
    "form",
    [
        "train-{:05}-of-00012.parquet",
        "data/train-{:05}-of-00012-b42a775f407cee45.parquet",
        "train_{}.jsonl",
        "train/{}.csv",
        "train/part-{:05}-3f2a-c000.snappy.parquet",
    ],
)
def test_parts_of_a_split_are_joined_in_the_order_of_their_numbers(
    tmp_path: Path, form: str
) -> None:
    for split in ("validation", "test"):
        write(tmp_path / f"{split}.jsonl", rows(split))
    for number in range(12):
        write(tmp_path / form.format(number), rows(f"part {number}", 1))
    opened = open_splits(DataConfig(str(tmp_path)), HUB)["train"].table
    expected = [f"part {number} 0" for number in range(12)]
    assert [row["premise"] for row in opened.rows] == expected
    assert [row["premise"] for _, _, _, row in opened.chosen([1, 5, 11])] == [
        expected[i] for i in (1, 5, 11)
    ]


def test_a_row_of_several_files_is_named_with_its_file(tmp_path: Path) -> None:
    for split in ("validation", "test"):
        write(tmp_path / f"{split}.jsonl", rows(split))
    for number in range(2):
        write(tmp_path / f"train_{number}.jsonl", rows("train", 2))
    (chosen,) = open_splits(DataConfig(str(tmp_path)), HUB)["train"].table.chosen([3])
    assert chosen.place == "row 3, line 2 of train_1.jsonl"


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    for number in (0, 2):
        write(tmp_path / f"train-0000{number}-of-00004.jsonl", rows("train"))
    assert "of the 4 parts of train, 2 parts are missing (number 1, 3)" in refusal(tmp_path).message


def test_a_configuration_is_chosen_by_its_folder(tmp_path: Path) -> None:
    for config in ("R1", "R2"):
        for split in SPLITS:
            write(tmp_path / config / f"{split}.jsonl", rows(f"{config} {split}"))
    assert premises(tmp_path, config_name="R2")["test"][0] == "R2 test 0"
    error = refusal(tmp_path)
    assert "in several folders: R1, R2" in error.message
    assert "data.config_name=R1" in error.hint


def test_files_of_the_folder_itself_come_before_those_below(tmp_path: Path) -> None:
    for split in SPLITS:
        write(tmp_path / f"{split}.jsonl", rows(split))
        write(tmp_path / "backup" / f"{split}.jsonl", rows("old"))
    assert premises(tmp_path)["test"][0] == "test 0"


def test_names_below_do_not_compete_with_those_of_the_folder_itself(tmp_path: Path) -> None:
    for name in ("train", "dev_matched", "dev_mismatched"):
        write(tmp_path / f"{name}.jsonl", rows(name, 1))
        write(tmp_path / "original" / f"multinli_1.0_{name}.jsonl", rows("original", 1))
    assert premises(tmp_path)["validation"] == ["dev_matched 0"]
    (tmp_path / "dev_matched.jsonl").unlink()
    assert premises(tmp_path)["validation"] == ["original 0"]


def test_of_a_corpus_in_two_formats_one_is_read(tmp_path: Path) -> None:
    for split in SPLITS:
        write(tmp_path / f"snli_1.0_{split}.jsonl", rows(split))
        write(tmp_path / f"snli_1.0_{split}.txt", rows("not read"))
    assert premises(tmp_path)["test"][0] == "test 0"


def test_a_split_with_and_without_compression_is_refused(tmp_path: Path) -> None:
    for split in SPLITS:
        write(tmp_path / f"{split}.jsonl", rows(split))
    (tmp_path / "test.jsonl.gz").write_bytes(b"")
    assert "split test more than once: test.jsonl, test.jsonl.gz" in refusal(tmp_path).message


def test_names_that_fit_equally_well_are_left_to_the_user(tmp_path: Path) -> None:
    for name in ("train_r1", "train_r2", "dev", "test"):
        write(tmp_path / f"{name}-00000-of-00001.parquet", rows(name, 1))
    error = refusal(tmp_path)
    assert "several names fit split train: train_r1, train_r2" in error.message
    joined = "train_r1+train_r2"
    assert joined in error.hint
    assert premises(tmp_path, train_split=joined)["train"] == ["train_r1 0", "train_r2 0"]


def test_the_split_of_other_genres_serves_as_test(tmp_path: Path) -> None:
    for name in ("train", "dev_matched", "dev_mismatched"):
        write(tmp_path / f"{name}.jsonl", rows(name, 1))
    assert premises(tmp_path) == {
        "train": ["train 0"],
        "validation": ["dev_matched 0"],
        "test": ["dev_mismatched 0"],
    }


@pytest.mark.parametrize("kind", ["dict", "one"])
def test_what_save_to_disk_writes_is_read(tmp_path: Path, kind: str) -> None:
    import datasets

    names = ["contradiction", "neutral", "entailment"]
    features = datasets.Features(
        {
            "premise": datasets.Value("string"),
            "hypothesis": datasets.Value("string"),
            "label": datasets.ClassLabel(names=names),
        }
    )
    made = {split: datasets.Dataset.from_list(rows(split, 30), features) for split in SPLITS}
    if kind == "dict":
        datasets.DatasetDict(made).save_to_disk(tmp_path / "saved", num_shards={"train": 2})
    else:
        made["train"].save_to_disk(tmp_path / "saved")
    opened = open_splits(DataConfig(str(tmp_path / "saved")), HUB)
    found = {row["premise"] for split in SPLITS for row in opened[split].table.rows}
    of_splits = SPLITS if kind == "dict" else ("train",)
    assert found == {f"{split} {i}" for split in of_splits for i in range(30)}
    assert opened["test"].table.class_labels == {"label": dict(enumerate(names))}


def test_an_arrow_file_with_a_footer_is_read_too(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist(rows("train", 40))
    with pyarrow.ipc.new_file(str(tmp_path / "all.arrow"), table.schema) as writer:
        writer.write_table(table)
    found = premises(tmp_path)
    assert sum(map(len, found.values())) == 40


def test_a_file_may_be_the_data_set(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", rows("mine", 40))
    write(tmp_path / "other.jsonl", rows("other"))
    found = premises(tmp_path / "test.jsonl")
    assert sum(map(len, found.values())) == 40
    assert source_stamp(DataConfig(str(tmp_path / "test.jsonl"))).startswith("test.jsonl:")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").touch()
    error = refusal(tmp_path / "rows.xlsx")
    assert "this file cannot be read" in error.message
    assert ".parquet" in error.hint


def test_several_files_without_the_name_of_a_split_are_refused(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(tmp_path / f"{name}.jsonl", rows(name))
    assert "no file of split train; it has first.jsonl, second.jsonl" in refusal(tmp_path).message


def test_the_stamp_is_of_the_files_that_are_read(tmp_path: Path) -> None:
    for split in SPLITS:
        write(tmp_path / "data" / f"{split}-00000-of-00001.parquet", rows(split))
    data = DataConfig(str(tmp_path))
    before = source_stamp(data)
    write(tmp_path / "other.jsonl", rows("other"))
    assert source_stamp(data) == before
    write(tmp_path / "data" / "test-00000-of-00001.parquet", rows("changed"))
    assert source_stamp(data) != before


@pytest.mark.parametrize(
    ("split", "known", "found"),
    [
        ("validation", ["train", "dev", "val"], ["dev", "val"]),
        ("test", ["test_matched", "test_mismatched"], ["test_matched", "test_mismatched"]),
        ("validation", ["validation_matched", "validation_mismatched"], ["validation_matched"]),
        ("test", ["train", "contest"], []),
        ("train", ["training"], ["training"]),
    ],
)
def test_names_of_splits(split: Split, known: list[str], found: list[str]) -> None:
    assert split_names(split, split, known, DataConfig("")) == found


def test_a_name_that_is_asked_for_has_no_other(tmp_path: Path) -> None:
    assert split_names("test", "holdout", ["test", "dev"], DataConfig("")) == []
    write(tmp_path / "holdout.jsonl", rows("test"))
    (group,) = find_groups(tmp_path, None)
    assert group.name == "holdout"
    source = source_of(DataConfig(str(tmp_path)), HUB)
    assert list(source.names()) == ["holdout"]
