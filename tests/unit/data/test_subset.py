"""Which rows are taken from a source, how they are read, and what is refused."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from nlijob import records
from nlijob.config import DataConfig, SplitSize
from nlijob.data.sources import source_stamp
from nlijob.data.subset import build_subset, chosen_indices, rule_text
from nlijob.errors import NotAvailableError
from nlijob.hub import Hub
from nlijob.records.job import SPLITS, Example, Manifest, Repetition
from nlijob.rundir import RunDir

NAMES = ("entailment", "neutral", "contradiction")
Rows = Sequence[Mapping[str, Any]]


def rows(count: int, split: str = "") -> list[dict[str, Any]]:
    return [
        {"premise": f"{split} premise {i}", "hypothesis": f"hypothesis {i}", "label": i % 3}
        for i in range(count)
    ]


def write_jsonl(path: Path, content: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")


def write_csv(path: Path, content: Rows, encoding: str = "utf-8") -> None:
    with path.open("w", encoding=encoding, newline="") as handle:
        writer = csv.DictWriter(handle, list(content[0]))
        writer.writeheader()
        writer.writerows(content)


def write_parquet(path: Path, content: Rows) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(content)), path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A data folder with twelve rows per split."""
    folder = tmp_path / "source"
    folder.mkdir()
    for split in SPLITS:
        write_jsonl(folder / f"{split}.jsonl", rows(12, split))
    return folder


def config(source: Path, **changes: Any) -> DataConfig:
    sizes = {f"{split}_size": 0 for split in SPLITS if f"{split}_stride" not in changes}
    return DataConfig(str(source), **{**sizes, **changes})


def build(source: Path, **changes: Any) -> tuple[Manifest, RunDir]:
    run = RunDir(source.parent / "run")
    return build_subset(config(source, **changes), run, Hub(True, print)), run


def taken(source: Path, **changes: Any) -> list[Example]:
    """The rows taken from the test split."""
    _, run = build(source, **changes)
    return list(records.read_lines(Example, run.subset("test")))


def refusal(source: Path, **changes: Any) -> NotAvailableError:
    with pytest.raises(NotAvailableError) as caught:
        build(source, **changes)
    return caught.value


# ---------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("count", "wanted", "indices"),
    [
        (10, SplitSize(stride=4), [0, 4, 8]),
        (9, SplitSize(stride=4), [0, 4, 8]),
        (8, SplitSize(stride=4), [0, 4]),
        (3, SplitSize(stride=100), [0]),
        (3, SplitSize(stride=1), [0, 1, 2]),
        (10, SplitSize(size=4), [0, 2, 5, 7]),
        (10, SplitSize(size=1), [0]),
        (4, SplitSize(size=4), [0, 1, 2, 3]),
        (4, SplitSize(size=9), [0, 1, 2, 3]),
        (4, SplitSize(size=0), [0, 1, 2, 3]),
        (0, SplitSize(size=3), []),
        (0, SplitSize(stride=3), []),
    ],
)
def test_the_rule_selects_these_rows(count: int, wanted: SplitSize, indices: list[int]) -> None:
    assert chosen_indices(count, wanted) == indices


@pytest.mark.parametrize(("count", "stride", "rows"), [(550_152, 550, 1001), (10_000, 100, 100)])
def test_the_default_strides_on_snli(count: int, stride: int, rows: int) -> None:
    assert len(chosen_indices(count, SplitSize(stride=stride))) == rows


@pytest.mark.parametrize("size", [1, 7, 333, 999])
def test_a_size_gives_that_many_rows_evenly_spaced(size: int) -> None:
    indices = chosen_indices(1000, SplitSize(size=size))
    gaps = {b - a for a, b in pairwise(indices)}
    assert len(indices) == size
    assert max(gaps, default=1) - min(gaps, default=1) <= 1


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (SplitSize(stride=550), "every 550th row"),
        (SplitSize(stride=2), "every 2nd row"),
        (SplitSize(stride=3), "every 3rd row"),
        (SplitSize(stride=11), "every 11th row"),
        (SplitSize(stride=121), "every 121st row"),
        (SplitSize(stride=1), "all rows"),
        (SplitSize(size=0), "all rows"),
        (SplitSize(size=1200), "1,200 evenly spaced rows"),
    ],
)
def test_the_rule_in_words(wanted: SplitSize, text: str) -> None:
    assert rule_text(wanted) == text


def test_rows_keep_their_number_in_the_source(source: Path) -> None:
    assert [e.index for e in taken(source, test_stride=5)] == [0, 5, 10]


# ---------------------------------------------------------------- unlabelled rows


def test_unlabelled_rows_are_dropped_after_the_rule_and_counted(source: Path) -> None:
    content = rows(12)
    for index in (1, 4, 8):
        content[index]["label"] = -1
    write_jsonl(source / "test.jsonl", content)
    manifest, _ = build(source, test_stride=4)
    test = manifest.splits["test"]
    assert (test.source_rows, test.selected, test.unlabelled_dropped, test.rows) == (12, 3, 2, 1)
    assert test.indices == (0,)


def test_an_unlabelled_row_may_lack_its_texts(source: Path) -> None:
    write_jsonl(source / "test.jsonl", [*rows(2), {"premise": None, "label": -1}])
    assert len(taken(source)) == 2


def test_a_split_of_which_no_labelled_row_is_left_is_refused(source: Path) -> None:
    content = [{**row, "label": label} for row, label in zip(rows(3), (-1, -1, 0), strict=True)]
    write_jsonl(source / "test.jsonl", content)
    error = refusal(source, test_size=1)
    assert "split test: no labelled row is left (3 rows, 1 selected" in error.message


@pytest.mark.parametrize("split", ["train", "test_matched"])
def test_a_split_without_labels_that_was_asked_for_is_refused(source: Path, split: str) -> None:
    write_jsonl(source / f"{split}.jsonl", [{**row, "label": -1} for row in rows(3)])
    changes = {"test_split": split} if split != "train" else {}
    assert "no labelled row is left (3 rows, 3 selected" in refusal(source, **changes).message


def test_an_empty_split_is_refused(source: Path) -> None:
    (source / "test.jsonl").write_text("", encoding="utf-8")
    assert "split test: the source has no rows" in refusal(source).message


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("suffix", "write"), [("jsonl", write_jsonl), ("csv", write_csv), ("parquet", write_parquet)]
)
def test_every_format_gives_the_same_rows(source: Path, suffix: str, write: Any) -> None:
    content = [
        {"premise": 'Il dit "été",\nfin', "hypothesis": "ligne 1\r\nligne 2", "label": 2},
        {"premise": "猫", "hypothesis": "", "label": 0},
    ]
    (source / "test.jsonl").unlink()
    write(source / f"test.{suffix}", content)
    assert taken(source) == [
        Example(0, 'Il dit "été",\nfin', "ligne 1\r\nligne 2", 2),
        Example(1, "猫", "", 0),
    ]


def test_a_byte_order_mark_is_not_part_of_a_column_name(source: Path) -> None:
    (source / "test.jsonl").unlink()
    write_csv(source / "test.csv", rows(3), encoding="utf-8-sig")
    (source / "train.jsonl").write_text(json.dumps(rows(1)[0]), encoding="utf-8-sig")
    assert len(taken(source)) == 3


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_file_that_does_not_have_the_format_of_its_name_is_reported(
    source: Path, suffix: str
) -> None:
    (source / "test.jsonl").unlink()
    (source / f"test.{suffix}").write_bytes(b"premise,hypothesis,label\n\xe9,b,0\n")
    assert f"test.{suffix} cannot be read" in refusal(source).message


@pytest.mark.parametrize("line", ["{", "[1]", "3", "null"])
def test_a_broken_line_is_reported_with_its_number(source: Path, line: str) -> None:
    good = json.dumps(rows(1)[0])
    (source / "test.jsonl").write_text(f"{good}\n{line}\n", encoding="utf-8")
    assert "test.jsonl cannot be read: 1 malformed line: line 2: not" in refusal(source).message


def test_a_split_in_two_formats_is_refused(source: Path) -> None:
    write_csv(source / "test.csv", rows(3))
    assert "split test more than once: test.jsonl, test.csv" in refusal(source).message


@pytest.mark.parametrize("changes", [{}, {"test_split": "test_matched"}])
def test_a_missing_split_is_reported_with_the_files_and_the_keys_that_name_splits(
    source: Path, changes: dict[str, Any]
) -> None:
    split = "test" if changes else "train"
    (source / f"{split}.jsonl").rename(source / "other.jsonl")
    error = refusal(source, **changes)
    assert f"contains no file of split {'test_matched' if changes else 'train'}" in error.message
    assert "other.jsonl" in error.message
    assert "data.test_split" in error.hint


def test_splits_may_have_other_names(source: Path) -> None:
    (source / "test.jsonl").rename(source / "test_matched.jsonl")
    assert len(taken(source, test_split="test_matched")) == 12


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "nowhere").message


def test_the_source_stamp_changes_with_a_file(source: Path) -> None:
    before = source_stamp(config(source))
    with (source / "test.jsonl").open("a", encoding="utf-8") as handle:
        handle.write("\n")
    assert source_stamp(config(source)) != before


def test_other_files_and_times_do_not_change_the_source_stamp(source: Path) -> None:
    before = source_stamp(config(source))
    os.utime(source / "test.jsonl", ns=(1, 1))
    (source / "README.md").write_text("rows", encoding="utf-8")
    assert source_stamp(config(source)) == before


def test_a_hub_data_set_has_no_stamp() -> None:
    assert source_stamp(DataConfig("owner/name")) == ""


# ---------------------------------------------------------------- columns and labels


def test_columns_may_have_other_names(source: Path) -> None:
    write_jsonl(source / "test.jsonl", [{"a": "one", "b": "two", "c": 1}])
    for split in ("train", "validation"):
        write_jsonl(source / f"{split}.jsonl", [{"a": "", "b": "", "c": 0}])
    names = {"premise_column": "a", "hypothesis_column": "b", "label_column": "c"}
    assert taken(source, **names) == [Example(0, "one", "two", 1)]


@pytest.mark.parametrize("texts", [("sentence1", "sentence2"), ("Context", "Hypothesis")])
def test_one_column_may_be_named_and_the_others_found(source: Path, texts: tuple[str, str]) -> None:
    for split in SPLITS:
        content = {texts[0]: f"one {split}", texts[1]: "two", "label": 0, "verdict": 2}
        write_jsonl(source / f"{split}.jsonl", [content])
    assert taken(source, label_column="verdict")[0].label == 2
    manifest, _ = build(source, label_column="verdict")
    assert manifest.splits["test"].columns == (*texts, "verdict")


def test_a_missing_column_is_reported_with_the_existing_ones(source: Path) -> None:
    write_jsonl(source / "test.jsonl", [{"premise": "a", "answer": "b", "label": 0}])
    error = refusal(source)
    assert "no column hypothesis; the columns are premise, answer, label" in error.message
    assert "data.hypothesis_column" in error.hint


def test_the_original_corpus_format_is_read_and_its_dash_means_unlabelled(source: Path) -> None:
    own = [
        {"gold_label": label, "sentence1": f"one {i}", "sentence2": f"two {i}", "pairID": "x"}
        for i, label in enumerate(["neutral", "-", "contradiction", "entailment"])
    ]
    write_jsonl(source / "test.jsonl", own)
    assert taken(source) == [
        Example(0, "one 0", "two 0", 1),
        Example(2, "one 2", "two 2", 2),
        Example(3, "one 3", "two 3", 0),
    ]
    manifest, _ = build(source)
    assert manifest.splits["test"].unlabelled_dropped == 1


@pytest.mark.parametrize(
    ("label", "number"),
    [(0, 0), ("0", 0), (" 2 ", 2), ("neutral", 1), (-1, None), ("-1", None), ("-", None)],
)
def test_labels_may_be_numbers_or_names(source: Path, label: Any, number: int | None) -> None:
    write_jsonl(source / "test.jsonl", [rows(1)[0], {**rows(2)[1], "label": label}])
    assert [e.label for e in taken(source)[1:]] == ([] if number is None else [number])


def test_a_label_map_gives_other_spellings_their_meaning(source: Path) -> None:
    spelt = [{**rows(1)[0], "label": label} for label in ("e", "c", "?", "neutral")]
    write_jsonl(source / "test.jsonl", spelt)
    label_map = {"e": 0, "c": 2, "?": -1}
    assert [e.label for e in taken(source, label_map=label_map)] == [0, 2, 1]


def test_a_label_map_wins_over_the_numbers_of_the_source(source: Path) -> None:
    flipped = {"0": 2, "2": 0}
    assert [e.label for e in taken(source, label_map=flipped)][:3] == [2, 1, 0]


@pytest.mark.parametrize("label", [3, -2, "hidden", 1.5, True, "²", "1e0", "٣"])
def test_a_label_out_of_range_is_reported_with_its_row(source: Path, label: Any) -> None:
    content = rows(12)
    content[8]["label"] = label
    write_jsonl(source / "test.jsonl", content)
    error = refusal(source, test_stride=4)
    assert f"split test: 1 row cannot be used (row 8, line 9: label {label!r})" in error.message
    assert "labels are 0 to 2, entailment, neutral, contradiction, or -1" in error.hint


def test_all_unknown_labels_are_listed_once(source: Path) -> None:
    labels = ["supports", "refutes", 7, "neutral", "unclear"] * 3
    content = [{**row, "label": label} for row, label in zip(rows(15), labels, strict=True)]
    write_jsonl(source / "test.jsonl", content)
    error = refusal(source)
    assert "12 rows cannot be used" in error.message
    assert error.message.endswith("; unknown labels: 'supports', 'refutes', 7, 'unclear'")
    assert "data.label_map, or name them with data.label_names" in error.hint


def test_of_many_unusable_rows_the_first_few_are_named(source: Path) -> None:
    write_jsonl(source / "test.jsonl", [{**row, "label": 7} for row in rows(9)])
    message = refusal(source).message
    assert "9 rows cannot be used" in message
    assert "row 4, line 5: label 7; and 4 more)" in message
    assert "row 5" not in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "is missing (null), not a text"),
        (math.nan, "is missing (NaN), not a text"),
        (3, "is 3, not a text"),
        (["a"], "is a list, not a text"),
        ("half an emoji: \ud83d", "has half of a character"),
    ],
)
@pytest.mark.parametrize("column", ["premise", "hypothesis"])
def test_a_text_that_is_none_is_named_with_its_row_and_column(
    source: Path, column: str, text: Any, told: str
) -> None:
    write_jsonl(source / "test.jsonl", [*rows(1), {**rows(2)[1], column: text}])
    error = refusal(source)
    assert f"row 1, line 2: column {column} {told}" in error.message
    assert "give these rows both texts" in error.hint


def test_each_split_is_read_by_the_names_of_its_own_source(source: Path) -> None:
    orders = {"train": NAMES, "validation": NAMES[::-1], "test": (NAMES[1], NAMES[2], NAMES[0])}
    for split, order in orders.items():
        (source / f"{split}.jsonl").unlink()
        table = pyarrow.Table.from_pylist(rows(3, split))
        label = {"_type": "ClassLabel", "names": list(order)}
        metadata = {"huggingface": json.dumps({"info": {"features": {"label": label}}})}
        pyarrow.parquet.write_table(
            table.replace_schema_metadata(metadata), source / f"{split}.parquet"
        )
    manifest, run = build(source)
    for split, order in orders.items():
        labels = [e.label for e in records.read_lines(Example, run.subset(split))]
        assert [NAMES[label] for label in labels] == list(order)
    assert manifest.splits["test"].labels_read == (
        "integer labels read by the names that the source carries: "
        "0 = neutral, 1 = contradiction, 2 = entailment"
    )


def test_unknown_names_of_a_source_are_reported_with_its_split(source: Path) -> None:
    (source / "test.jsonl").unlink()
    label = {"_type": "ClassLabel", "names": ["yes", "no", "neutral"]}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": label}}})}
    table = pyarrow.Table.from_pylist(rows(3)).replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, source / "test.parquet")
    error = refusal(source)
    assert "split test: the source names its labels 'yes', 'no' and 'neutral'" in error.message
    assert [e.label for e in taken(source, label_map={"yes": 0, "no": 2})] == [0, 2, 1]


def test_a_row_without_its_label_key_is_refused(source: Path) -> None:
    # writers that leave out zeros would make every entailment unlabelled
    write_jsonl(source / "test.jsonl", [*rows(1), {"premise": "a", "hypothesis": "b"}])
    assert "row 1, line 2: it has no column label" in refusal(source).message


# ---------------------------------------------------------------- the manifest


def test_the_manifest_on_disk_is_the_one_returned(source: Path) -> None:
    manifest, run = build(source)
    assert records.read(Manifest, run.manifest) == manifest


def test_the_manifest_records_the_request(source: Path) -> None:
    manifest, _ = build(source, test_stride=4, config_name="c", revision="r")
    assert (manifest.dataset, manifest.revision, manifest.config_name) == (str(source), "r", "c")
    assert manifest.label_names == NAMES
    assert manifest.splits["test"].rule == "every 4th row"
    assert manifest.splits["test"].class_counts == (1, 1, 1)


def test_the_manifest_states_how_files_and_labels_were_read(source: Path) -> None:
    (source / "test.jsonl").unlink()
    text = 'premise,hypothesis,label\n\na,"b\nc",0\nd,e,1\n'
    (source / "test.csv").write_text(text, encoding="utf-8")
    test = build(source)[0].splits["test"]
    assert (test.blank_lines, test.fields_over_lines, test.first_fields_over_lines) == (1, 1, (3,))
    assert test.labels_read == (
        "the source names no labels; 0 and 1 were read as entailment and neutral"
    )


def test_the_manifest_counts_rows_that_stand_in_two_splits(source: Path) -> None:
    manifest, _ = build(source, test_split="validation")
    overlaps = {(one.split, one.other): one for one in manifest.overlaps}
    assert overlaps["test", "validation"].is_same
    assert overlaps["test", "validation"].whole_rows == 12
    assert overlaps["test", "train"].whole_rows == 0
    assert manifest.splits["test"].repetition == Repetition(12, 0, 0)


def test_a_csv_row_of_lines_that_all_look_like_rows_is_a_warning(source: Path) -> None:
    (source / "test.jsonl").unlink()
    text = 'premise,hypothesis,label\na,b,0\na,b,2\n"Tis,b,1\nc,d,0\nHello",b,1\n'
    (source / "test.csv").write_text(text, encoding="utf-8")
    (warning,) = build(source)[0].warnings
    assert "stray quotes may have joined rows of the CSV file: 1 row (at line 4)" in warning


def test_premises_that_splits_share_are_counted_once_each(source: Path) -> None:
    shared = [{**row, "premise": "seen before"} for row in rows(3)]
    write_jsonl(source / "train.jsonl", [*rows(3, "train"), *shared])
    write_jsonl(source / "test.jsonl", [*rows(3, "test"), *shared])
    manifest, _ = build(source)
    assert manifest.shared_premises == {
        "train+validation": 0,
        "train+test": 1,
        "validation+test": 0,
    }


@pytest.mark.parametrize(
    ("column", "value"), [("premise", "other"), ("hypothesis", "other"), ("label", 2)]
)
def test_the_hash_of_the_rows_changes_with_any_of_them(
    source: Path, column: str, value: Any
) -> None:
    before, _ = build(source)
    content = rows(12, "test")
    content[7][column] = value
    write_jsonl(source / "test.jsonl", content)
    after, _ = build(source)
    assert after.splits["test"].rows_sha256 != before.splits["test"].rows_sha256
    assert after.splits["train"].rows_sha256 == before.splits["train"].rows_sha256


def test_the_hash_of_a_file_is_what_sha256sum_gives(source: Path) -> None:
    manifest, run = build(source)
    for split in SPLITS:
        file = run.subset(split).read_bytes()
        assert manifest.splits[split].file_sha256 == hashlib.sha256(file).hexdigest()


def test_the_hash_of_the_rows_is_that_of_a_json_list_for_each(source: Path) -> None:
    manifest, run = build(source)
    taken_rows = records.read_lines(Example, run.subset("test"))
    lines = (
        json.dumps([one.premise, one.hypothesis, one.label], ensure_ascii=False)
        for one in taken_rows
    )
    text = "".join(f"{line}\n" for line in lines)
    assert manifest.splits["test"].rows_sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_the_hash_is_of_the_rows_not_of_their_file(source: Path) -> None:
    before, _ = build(source)
    (source / "test.jsonl").unlink()
    write_parquet(source / "test.parquet", rows(12, "test"))
    after, _ = build(source)
    assert after.splits["test"].rows_sha256 == before.splits["test"].rows_sha256


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"test_size": 50}, "test: 50 rows were requested, but the split has 12; all were taken"),
        ({"test_stride": 3}, "test: no row is labelled neutral, contradiction"),
    ],
)
def test_oddities_of_a_split_are_warnings(
    source: Path, changes: dict[str, Any], warning: str
) -> None:
    manifest, _ = build(source, **changes)
    assert manifest.warnings == (warning,)


@pytest.mark.parametrize(
    ("count", "stride", "is_warned"), [(120, 50, True), (99, 50, False), (120, 1, False)]
)
def test_a_stride_that_is_too_large_for_a_small_data_set_is_a_warning(
    source: Path, count: int, stride: int, is_warned: bool
) -> None:
    write_jsonl(source / "train.jsonl", rows(count, "train"))
    manifest, _ = build(source, train_stride=stride)
    told = "train: every 50th row is 3 of 120; --train-size takes more of a small data set"
    assert (told in manifest.warnings) == is_warned
    assert is_warned or not [text for text in manifest.warnings if "--train-size" in text]


def test_blank_texts_are_a_warning(source: Path) -> None:
    content = rows(12)
    content[2]["premise"] = "  "
    content[3]["hypothesis"] = ""
    write_jsonl(source / "test.jsonl", content)
    manifest, _ = build(source)
    assert manifest.warnings == ("test: 2 rows with an empty premise or hypothesis",)


def test_a_normal_subset_has_no_warning(source: Path) -> None:
    manifest, _ = build(source)
    assert manifest.warnings == ()
