"""Where rows come from: a hub data set, or a folder with one file for each split."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlijob.config import DataConfig
from nlijob.demo import DATA_DIR
from nlijob.errors import NotAvailableError
from nlijob.hub import Hub, folder_stamp, local_folder
from nlijob.records.job import Split

Row = Mapping[str, Any]
FORMATS = (".jsonl", ".parquet", ".csv")
TEXT = "utf-8-sig"
"""UTF-8, with or without the byte order mark that some programs write."""


def source_stamp(data: DataConfig) -> str:
    """Return a stamp of the names and contents of a local source's files; "" for a hub data set."""
    directory = local_directory(data)
    return folder_stamp(directory, [f"*{suffix}" for suffix in FORMATS]) if directory else ""


def open_split(data: DataConfig, split: Split, hub: Hub) -> Sequence[Row]:
    """The rows of a split, in their stored order.

    Raises NotAvailableError if they are not available.
    """
    name = getattr(data, f"{split}_split")
    directory = local_directory(data)
    if directory is not None:
        return read_rows(_split_file(directory, name))
    return hub.load_split(data.dataset, data.config_name, data.revision, name)


def local_directory(data: DataConfig) -> Path | None:
    """Return the local folder of the data set, or None for a hub id."""
    if data.dataset == "demo":
        return DATA_DIR
    return local_folder(data.dataset, "data set", "data.dataset")


def _split_file(directory: Path, name: str) -> Path:
    found = [path for suffix in FORMATS if (path := directory / f"{name}{suffix}").is_file()]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotAvailableError(
            f"{directory} contains no {name}.jsonl, {name}.parquet or {name}.csv",
            "set data.train_split, data.validation_split and data.test_split to the files' names "
            "without their endings",
        )
    raise NotAvailableError(
        f"{directory} contains split {name} more than once: {', '.join(p.name for p in found)}",
        "keep only one of them",
    )


def read_rows(path: Path) -> Sequence[Row]:
    """Return the rows of a .jsonl, .csv or .parquet file, each a mapping from column to value.

    Raises NotAvailableError if the content does not have the format that the name says.
    """
    readers = {".jsonl": _read_json_lines, ".csv": _read_csv, ".parquet": _read_parquet}
    try:
        return readers[path.suffix](path)
    except (ValueError, csv.Error) as error:
        raise NotAvailableError(
            f"{path} cannot be read: {error}", "text files are read as UTF-8"
        ) from error


def _read_csv(path: Path) -> list[Row]:
    with path.open(encoding=TEXT, newline="") as handle:
        return list(csv.DictReader(handle))


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow.parquet

    rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def _read_json_lines(path: Path) -> list[Row]:
    rows: list[Row] = []
    with path.open(encoding=TEXT) as handle:
        for number, line in enumerate(handle, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise NotAvailableError(f"{path}, line {number}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise NotAvailableError(f"{path}, line {number}: not an object with columns")
            rows.append(row)
    return rows
