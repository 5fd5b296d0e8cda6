"""Where rows come from, the names of labels that a source carries, and right hints."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from nlijob import records
from nlijob.config import DataConfig
from nlijob.data.features import class_labels
from nlijob.data.sources import read_file, source_of, source_stamp
from nlijob.data.splits import open_splits
from nlijob.data.subset import build_subset
from nlijob.data.table import NoSurvey, Table
from nlijob.errors import NotAvailableError
from nlijob.hub import Hub
from nlijob.records.job import Example
from nlijob.rundir import RunDir

ORDER = ("contradiction", "neutral", "entailment")
NUMBERED = dict(enumerate(ORDER))
ROWS = [{"premise": "a", "hypothesis": "b", "label": 0}]
CARD = """---
dataset_info:
  config_name: plain
  features:
  - name: premise
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': contradiction
          '1': neutral
          '2': entailment
---
"""


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], metadata: Any = None) -> None:
    table = pyarrow.Table.from_pylist(list(rows))
    if metadata is not None:
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        table = table.replace_schema_metadata({"huggingface": text})
    pyarrow.parquet.write_table(table, path)


def opened(folder: Path, **changes: Any) -> Table:
    """The test split of a folder, whether it has others or not."""
    source = source_of(DataConfig(str(folder), **changes), Hub(True, print))
    return source.open("test", "test", NoSurvey())


def refusal(folder: Path) -> NotAvailableError:
    with pytest.raises(NotAvailableError) as caught:
        opened(folder)
    return caught.value


# ---------------------------------------------------------------- names of labels


@pytest.mark.parametrize(
    "label",
    [
        {"_type": "ClassLabel", "names": list(ORDER)},
        {"_type": "ClassLabel", "names": list(ORDER), "num_classes": 3, "id": None},
        {"class_label": {"names": {"2": "entailment", "0": "contradiction", "1": "neutral"}}},
        {"dtype": {"class_label": {"names": list(ORDER)}}},
    ],
)
def test_parquet_metadata_name_the_labels(tmp_path: Path, label: Any) -> None:
    features = {"premise": {"dtype": "string", "_type": "Value"}, "label": label}
    write_parquet(tmp_path / "test.parquet", ROWS, {"info": {"features": features}})
    assert opened(tmp_path).class_labels == {"label": NUMBERED}


@pytest.mark.parametrize(
    "metadata",
    [None, "{", {}, {"info": None}, {"info": {"features": {"label": {"dtype": "int64"}}}}],
)
def test_parquet_metadata_may_name_nothing(tmp_path: Path, metadata: Any) -> None:
    write_parquet(tmp_path / "test.parquet", ROWS, metadata)
    assert opened(tmp_path).class_labels == {}


def test_features_of_the_library_name_the_labels() -> None:
    import datasets

    features = datasets.Features(
        {"premise": datasets.Value("string"), "label": datasets.ClassLabel(names=list(ORDER))}
    )
    assert class_labels(features) == {"label": NUMBERED}


def test_a_file_that_the_library_wrote_names_the_labels(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {
            "premise": datasets.Value("string"),
            "hypothesis": datasets.Value("string"),
            "label": datasets.ClassLabel(names=list(ORDER)),
        }
    )
    datasets.Dataset.from_list(ROWS, features).to_parquet(tmp_path / "test.parquet")
    assert opened(tmp_path).class_labels == {"label": NUMBERED}


def test_a_hub_data_set_is_read_by_the_names_of_its_features(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {
            "premise": datasets.Value("string"),
            "hypothesis": datasets.Value("string"),
            "label": datasets.ClassLabel(names=list(ORDER)),
        }
    )

    class OneHub(Hub):
        def split_names(self, *_: Any) -> list[str]:
            return ["train", "validation", "test"]

        def csv_files(self, *_: Any) -> Any:
            return [], {}

        def load_split(self, *_: Any) -> Any:
            content = [{**ROWS[0], "label": label} for label in (0, 1, 2, -1)]
            return datasets.Dataset.from_list(content, features)

    data = DataConfig("owner/name", train_size=0, validation_size=0, test_size=0)
    run = RunDir(tmp_path / "run")
    manifest = build_subset(data, run, OneHub(True, print))
    assert [e.label for e in records.read_lines(Example, run.subset("test"))] == [2, 1, 0]
    assert manifest.splits["test"].unlabelled_dropped == 1


class FolderHub(Hub):
    """A hub whose one data set is a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(True, print)
        self.folder = folder

    def _fetch(self, *_: Any) -> Path:
        return self.folder


@pytest.fixture
def of_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the data set's files."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "owner--name"
    folder.mkdir()
    for split in ("train", "validation"):
        (folder / f"{split}.csv").write_text("premise,hypothesis,label\na,b,0\n")
    return folder


def test_a_csv_file_of_a_hub_is_read_strictly(of_hub: Path) -> None:
    (of_hub / "test.csv").write_text(
        'premise,hypothesis,label\n"a "dog" runs",b,0\na,"c\nd,e,1\nf",g,2\n'
    )
    with pytest.raises(NotAvailableError, match="line 2"):
        open_splits(DataConfig("owner/name"), FolderHub(of_hub))


def test_the_card_of_a_hub_names_the_labels_of_its_csv_files(of_hub: Path) -> None:
    (of_hub / "test.csv").write_text("premise,hypothesis,label\na,b,2\n")
    names = "".join(f"\n          '{number}': {name}" for number, name in NUMBERED.items())
    features = "".join(
        f"\n  - name: {name}\n    dtype:{dtype}"
        for name, dtype in (
            ("premise", " string"),
            ("hypothesis", " string"),
            ("label", f"\n      class_label:\n        names:{names}"),
        )
    )
    card = f"---\ndataset_info:\n  features:{features}\n---\n"
    (of_hub / "README.md").write_text(card, encoding="utf-8")
    table = open_splits(DataConfig("owner/name"), FolderHub(of_hub))["test"].table
    assert [dict(row) for row in table.rows] == [{"premise": "a", "hypothesis": "b", "label": "2"}]
    assert table.class_labels == {"label": NUMBERED}


def test_files_of_a_hub_with_another_separator_are_left_to_the_library(of_hub: Path) -> None:
    card = "---\nconfigs:\n- config_name: default\n  data_files: '*.csv'\n  sep: ';'\n---\n"
    (of_hub / "README.md").write_text(card, encoding="utf-8")
    assert FolderHub(of_hub).csv_files("owner/name", None, None, "train") == ([], {})


def test_a_split_that_a_hub_data_set_lacks_is_taken_from_its_training_rows(of_hub: Path) -> None:
    rows = "".join(f"premise {i},b,{i % 3}\n" for i in range(60))
    (of_hub / "train.csv").write_text(f"premise,hypothesis,label\n{rows}")
    opened = open_splits(DataConfig("owner/name"), FolderHub(of_hub))
    assert "as there is no test split" in opened["test"].origin
    assert len(opened["test"].table) + len(opened["train"].table) == 60
    assert len(opened["validation"].table) == 1


def test_rounds_of_a_hub_data_set_may_be_joined(of_hub: Path) -> None:
    import datasets

    for split in ("train", "validation"):
        (of_hub / f"{split}.csv").unlink()
    for name in ("train_r1", "train_r2", "dev_r1", "test_r1"):
        rows = datasets.Dataset.from_list([{**ROWS[0], "premise": f"{name} {i}"} for i in range(5)])
        rows.to_parquet(of_hub / f"{name}-00000-of-00001.parquet")
    files = "".join(
        f"\n  - split: {name}\n    path: {name}-*"
        for name in ("train_r1", "train_r2", "dev_r1", "test_r1")
    )
    card = f"---\nconfigs:\n- config_name: plain\n  data_files:{files}\n---\n"
    (of_hub / "README.md").write_text(card, encoding="utf-8")
    hub = FolderHub(of_hub)
    with pytest.raises(
        NotAvailableError, match="several names fit split train: train_r1, train_r2"
    ):
        open_splits(DataConfig("owner/name"), hub)
    opened = open_splits(DataConfig("owner/name", train_split="train_r1+train_r2"), hub)
    table = opened["train"].table
    assert [row["premise"] for _, _, _, row in table.chosen([0, 4, 5, 9])] == [
        "train_r1 0",
        "train_r1 4",
        "train_r2 0",
        "train_r2 4",
    ]
    assert (opened["validation"].origin, opened["test"].origin) == (
        "read from dev_r1",
        "read from test_r1",
    )
    with pytest.raises(NotAvailableError, match="has no split train_r3; it has train_r1, train_r2"):
        open_splits(DataConfig("owner/name", train_split="train_r1+train_r3"), hub)


@pytest.mark.parametrize("config_name", [None, "plain"])
def test_the_card_in_a_folder_names_the_labels(tmp_path: Path, config_name: str | None) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps(ROWS[0]), encoding="utf-8")
    before = source_stamp(DataConfig(str(tmp_path)))
    (tmp_path / "README.md").write_text(CARD, encoding="utf-8")
    assert opened(tmp_path, config_name=config_name).class_labels == {"label": NUMBERED}
    assert source_stamp(DataConfig(str(tmp_path))) != before


@pytest.mark.parametrize("config_name", [None, "plain"])
@pytest.mark.parametrize("name", ["dataset_infos.json", "dataset_info.json"])
def test_a_description_in_json_names_the_labels(
    tmp_path: Path, name: str, config_name: str | None
) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps(ROWS[0]), encoding="utf-8")
    info = {"features": {"label": {"_type": "ClassLabel", "names": list(ORDER)}}}
    content = {"plain": info} if name == "dataset_infos.json" else info
    (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    assert opened(tmp_path, config_name=config_name).class_labels == {"label": NUMBERED}


def test_configurations_with_different_names_need_a_choice(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps(ROWS[0]), encoding="utf-8")
    infos = {
        config: {"features": {"label": {"_type": "ClassLabel", "names": names}}}
        for config, names in {"a": list(ORDER), "b": list(ORDER[::-1])}.items()
    }
    (tmp_path / "dataset_infos.json").write_text(json.dumps(infos), encoding="utf-8")
    error = refusal(tmp_path)
    assert "name their labels in different ways" in error.message
    assert "data.config_name" in error.hint
    assert opened(tmp_path, config_name="a").class_labels == {"label": NUMBERED}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"features": 3}', '{"a": {"features": []}}', "[" * 99_999]
)
def test_a_damaged_description_names_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps(ROWS[0]), encoding="utf-8")
    for name in ("dataset_infos.json", "dataset_info.json"):
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert opened(tmp_path).class_labels == {}


@pytest.mark.parametrize("card", ["", "# class_label", "---\nclass_label: [\n---\n"])
def test_a_card_may_name_nothing(tmp_path: Path, card: str) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps(ROWS[0]), encoding="utf-8")
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert opened(tmp_path).class_labels == {}


def test_the_card_of_another_configuration_names_nothing(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps(ROWS[0]), encoding="utf-8")
    (tmp_path / "README.md").write_text(CARD, encoding="utf-8")
    assert opened(tmp_path, config_name="other").class_labels == {}


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("part", [slice(0, -40), slice(0, 8), slice(8, None)])
def test_a_damaged_parquet_file_is_reported(tmp_path: Path, part: slice) -> None:
    write_parquet(tmp_path / "test.parquet", ROWS * 50)
    content = (tmp_path / "test.parquet").read_bytes()
    (tmp_path / "test.parquet").write_bytes(content[part])
    assert "test.parquet cannot be read" in refusal(tmp_path).message


def test_a_parquet_file_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    names = ["premise", "hypothesis", "label", "label"]
    table = pyarrow.Table.from_arrays([pyarrow.array([value]) for value in ("a", "b", 0, 1)], names)
    pyarrow.parquet.write_table(table, tmp_path / "test.parquet")
    assert "several columns are named 'label'" in refusal(tmp_path).message


def test_a_file_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    (tmp_path / "test.csv").mkdir()
    with pytest.raises(NotAvailableError, match=r"test\.csv cannot be read: IsADirectoryError"):
        read_file(tmp_path / "test.csv")


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("test.zip", "archives are not read: unpack or convert test.zip; files may be .jsonl, "),
        ("snli_1.0_test.jsonl.bz2", "files compressed with bzip2 are not read"),
        ("holdout.jsonl", "set data.train_split, data.validation_split and data.test_split"),
    ],
)
def test_a_folder_without_the_file_is_told_what_to_do_with_what_it_has(
    tmp_path: Path, file: str, told: str
) -> None:
    (tmp_path / file).touch()
    error = refusal(tmp_path)
    assert f"contains no file of split test; it has {file}" in error.message
    assert told in error.hint


def test_an_empty_folder_is_reported(tmp_path: Path) -> None:
    assert "it has no files" in refusal(tmp_path).message


def test_a_folder_whose_name_is_not_utf_8_is_reported_readably(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    message = refusal(Path(os.fsdecode(folder))).message
    assert "caf\ufffd: the name is not UTF-8" in message
    message.encode()  # can be printed
    (tmp_path / "link").symlink_to(os.fsdecode(folder))
    Path(os.fsdecode(folder + b"/test.jsonl")).write_text(json.dumps(ROWS[0]), encoding="utf-8")
    assert opened(tmp_path / "link").rows == ROWS


def test_a_file_whose_name_is_not_utf_8_is_listed_readably(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl")).touch()
    assert "it has caf\ufffd.jsonl" in refusal(tmp_path).message


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_file_that_changes_while_it_is_read_is_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(large_file(suffix, 9))
    table = read_file(path)
    path.write_bytes(large_file(suffix, 9)[:1500])
    with pytest.raises(NotAvailableError, match=f"rows{suffix} changed while it was read"):
        list(table.chosen([0, 8]))


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz"])
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = 1 << 14
    monkeypatch.setattr("nlijob.data.text.BLOCK_BYTES", block)

    def peak_bytes(rows: int) -> int:
        path = tmp_path / f"{rows}{suffix}"
        path.write_bytes(large_file(suffix, rows))
        tracemalloc.start()
        table = read_file(path)
        assert len([*table.chosen(range(0, rows, 100))]) == rows // 100
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak_bytes(100)  # what is imported and compiled at the first time
    assert peak_bytes(2_000) < peak_bytes(100) + 8 * block < 0.5 * len(large_file(".jsonl", 2_000))


def large_file(suffix: str, rows: int) -> bytes:
    """Rows of 500 characters."""
    content = [{"premise": f"{i:0400}", "hypothesis": f"{i:060}", "label": 0} for i in range(rows)]
    if suffix == ".json":
        return json.dumps(content).encode()
    if suffix in (".csv", ".tsv"):
        mark = "," if suffix == ".csv" else "\t"
        lines = [mark.join(content[0]), *(mark.join(map(str, row.values())) for row in content)]
        return "\n".join(lines).encode()
    text = "".join(json.dumps(row) + "\n" for row in content).encode()
    return gzip.compress(text, mtime=0) if suffix.endswith(".gz") else text
