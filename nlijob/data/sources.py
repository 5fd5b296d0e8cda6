"""Where rows come from: a hub data set, or a folder with one file for each split."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from nlijob.config import DataConfig
from nlijob.data.csv_file import read_csv
from nlijob.data.features import class_labels, folder_class_labels
from nlijob.data.json_lines import read_json_lines
from nlijob.data.parquet_file import read_parquet
from nlijob.data.table import ClassLabels, Table
from nlijob.demo import DATA_DIR
from nlijob.errors import NotAvailableError, first_line
from nlijob.hub import Hub, folder_stamp, local_folder
from nlijob.records.job import Split

READERS = {".jsonl": read_json_lines, ".parquet": read_parquet, ".csv": read_csv}
NOT_READ = {
    ".tsv": "tab-separated files",
    ".json": "JSON files that are one array or object",
    ".arrow": "Arrow files",
    ".gz": "compressed files",
    ".bz2": "compressed files",
    ".xz": "compressed files",
    ".zst": "compressed files",
    ".zip": "archives",
}
"""Endings of data files that are not read, and what they are called."""
SHOWN_FILES = 5


def source_stamp(data: DataConfig) -> str:
    """Return a stamp of the names and contents of a local source's files; "" for a hub data set."""
    directory = local_directory(data)
    if directory is None:
        return ""
    stamp = folder_stamp(directory, [f"*{suffix}" for suffix in READERS])
    names = folder_class_labels(directory, data.config_name)
    return f"{stamp}|{json.dumps(names)}" if names else stamp


def open_split(data: DataConfig, split: Split, hub: Hub) -> Table:
    """The rows of a split, in their stored order.

    Raises NotAvailableError if they are not available or their file is malformed.
    """
    name = getattr(data, f"{split}_split")
    directory = local_directory(data)
    if directory is None:
        asked = (data.dataset, data.config_name, data.revision, name)
        files, features = hub.csv_files(*asked)
        if files:
            return _joined([read_csv(file) for file in files], class_labels(features))
        rows = hub.load_split(*asked)
        return Table(rows, class_labels=class_labels(getattr(rows, "features", {})))
    table = read_file(_split_file(directory, name))
    described = folder_class_labels(directory, data.config_name)
    return dataclasses.replace(table, class_labels={**described, **table.class_labels})


def _joined(tables: Sequence[Table], labels: ClassLabels) -> Table:
    """Tables one after the other; lines are told where they are of a single file."""
    if len(tables) == 1:
        return dataclasses.replace(tables[0], class_labels=labels)
    return Table(
        [row for table in tables for row in table.rows],
        blank_lines=sum(table.blank_lines for table in tables),
        class_labels=labels,
    )


def local_directory(data: DataConfig) -> Path | None:
    """Return the local folder of the data set, or None for a hub id.

    Raises NotAvailableError if there is no such folder, or if its name is not UTF-8.
    """
    if data.dataset == "demo":
        return DATA_DIR
    if any("\ud800" <= letter <= "\udfff" for letter in data.dataset):  # bytes that are not UTF-8
        raise NotAvailableError(
            f"data set {_readable(Path(data.dataset))}: the name is not UTF-8, so records cannot "
            "state it",
            "rename the folder, or give a link to it whose name is UTF-8",
        )
    return local_folder(data.dataset, "data set", "data.dataset")


def read_file(path: Path) -> Table:
    """The rows of a .jsonl, .csv or .parquet file.

    Raises NotAvailableError if the content does not have the format that the name says.
    """
    try:
        return READERS[path.suffix](path)
    except OSError as error:
        raise NotAvailableError(
            f"{path} cannot be read: {first_line(error)}", "check the file and its access rights"
        ) from error


def _split_file(directory: Path, name: str) -> Path:
    found = [path for suffix in READERS if (path := directory / f"{name}{suffix}").is_file()]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotAvailableError(
            f"{directory} contains no {name}.jsonl, {name}.parquet or {name}.csv"
            + _instead(directory, name),
            _how_to_give_a_split(directory, name),
        )
    raise NotAvailableError(
        f"{directory} contains split {name} more than once: {', '.join(p.name for p in found)}",
        "keep only one of them",
    )


def _files(directory: Path) -> list[Path]:
    """The visible files of a folder and of the folders in it, relative to it."""
    found = [*directory.glob("*"), *directory.glob("*/*")]
    paths = sorted(path.relative_to(directory) for path in found if path.is_file())
    return [path for path in paths if not any(part.startswith(".") for part in path.parts)]


def _instead(directory: Path, name: str) -> str:
    """What the folder has instead of a split's file: those of its name first."""
    files = sorted(_files(directory), key=lambda path: not path.name.startswith(name))
    if not files:
        return "; it has no files"
    more = ", ..." if len(files) > SHOWN_FILES else ""
    return f"; it has {', '.join(map(_readable, files[:SHOWN_FILES]))}{more}"


def _how_to_give_a_split(directory: Path, name: str) -> str:
    files = _files(directory)
    of_split = [path for path in files if path.name.startswith(name)]
    parts = [path for path in of_split if path.suffix in READERS and "-of-" in path.stem]
    if parts:
        file = f"{name}{parts[0].suffix}"
        return f"a split is read from one file: join {parts[0].parent}/{name}-* to {file}"
    if kinds := {NOT_READ[path.suffix] for path in of_split if path.suffix in NOT_READ}:
        return (
            f"{' and '.join(sorted(kinds))} are not read: unpack or convert "
            f"{', '.join(map(_readable, of_split[:SHOWN_FILES]))} to {name}.jsonl, "
            f"{name}.parquet or {name}.csv"
        )
    if any(path.suffix in READERS and len(path.parts) > 1 for path in files):
        return "give the folder that holds the files themselves as data.dataset"
    return (
        "set data.train_split, data.validation_split and data.test_split to the files' names "
        "without their endings"
    )


def _readable(path: Path) -> str:
    """A path for a message, whatever bytes are in its name."""
    name = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return name if name.isprintable() else repr(name)
