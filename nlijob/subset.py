"""The subset stage: selects rows of each split, drops unlabelled ones, writes rows and manifest.

Rows come from a hub data set or from a directory with one file per split. A stride selects rows 0,
k, 2k, ... of the split in its stored order; a size selects that many evenly spaced rows. Rows
labelled -1 (the annotators did not agree) are dropped afterwards and counted.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from nlijob.analysis.wording import plural
from nlijob.config import DataConfig, SplitSize
from nlijob.demo import DATA_DIR
from nlijob.errors import NotAvailableError
from nlijob.hub import Hub, folder_stamp, local_folder
from nlijob.records.job import SPLITS, Example, Manifest, Split, SplitManifest
from nlijob.rundir import RunDir, write_record, write_records

Row = Mapping[str, Any]
UNLABELLED = -1
FORMATS = (".jsonl", ".parquet", ".csv")
CORPUS_COLUMNS = {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"}
TEXT = "utf-8-sig"
"""UTF-8, with or without the byte order mark that some programs write."""
SHOWN_FAULTS = 5


def build_subset(data: DataConfig, run: RunDir, hub: Hub) -> Manifest:
    """Write subset/<split>.jsonl for the three splits, then subset/manifest.json.

    Raises NotAvailableError if the data are not available, a label is out of range, or no labelled
    row of a split is left.
    """
    taken = {split: _take_split(data, split, hub) for split in SPLITS}
    warnings = [w for split in SPLITS for w in _warnings(data, split, *taken[split])]
    for split, (_, examples) in taken.items():
        write_records(run.subset(split), examples)
    manifest = Manifest(
        dataset=data.dataset,
        revision=data.revision,
        config_name=data.config_name,
        label_names=data.label_names,
        splits={split: manifest for split, (manifest, _) in taken.items()},
        shared_premises=_shared_premises({s: examples for s, (_, examples) in taken.items()}),
        warnings=tuple(warnings),
    )
    write_record(run.manifest, manifest)
    return manifest


def chosen_indices(rows: int, wanted: SplitSize) -> list[int]:
    """Return the row numbers to select from a split with `rows` rows."""
    if wanted.stride is not None:
        return list(range(0, rows, wanted.stride))
    size = wanted.size or rows
    if size >= rows:
        return list(range(rows))
    return [i * rows // size for i in range(size)]


def rule_text(wanted: SplitSize) -> str:
    """Return the selection rule in words."""
    if wanted.stride == 1 or wanted.size == 0:
        return "all rows"
    if wanted.stride is not None:
        return f"every {_ordinal(wanted.stride)} row"
    return f"{wanted.size:,} evenly spaced rows"


def source_stamp(data: DataConfig) -> str:
    """Return a stamp of the names and contents of a local source's files; "" for a hub data set."""
    directory = _directory(data)
    return folder_stamp(directory, [f"*{suffix}" for suffix in FORMATS]) if directory else ""


def _take_split(data: DataConfig, split: Split, hub: Hub) -> tuple[SplitManifest, list[Example]]:
    source = _open_split(data, split, hub)
    wanted = data.split_size(split)
    indices = chosen_indices(len(source), wanted)
    examples = _examples(data, split, source, indices)
    labelled = [example for example in examples if example.label != UNLABELLED]
    if not labelled:
        raise NotAvailableError(
            f"{data.dataset}, split {split}: no labelled row is left "
            f"({plural(len(source), 'row')}, {len(indices):,} selected)",
            f"check the file, data.{split}_stride and data.{split}_size",
        )
    manifest = SplitManifest(
        split=split,
        source_rows=len(source),
        rule=rule_text(wanted),
        selected=len(indices),
        unlabelled_dropped=len(examples) - len(labelled),
        rows=len(labelled),
        class_counts=tuple(
            sum(example.label == label for example in labelled)
            for label in range(len(data.label_names))
        ),
        rows_sha256=_rows_hash(labelled),
        indices=tuple(example.index for example in labelled),
    )
    return manifest, labelled


# ---------------------------------------------------------------- sources


def _open_split(data: DataConfig, split: Split, hub: Hub) -> Sequence[Row]:
    name = getattr(data, f"{split}_split")
    directory = _directory(data)
    if directory is not None:
        return read_rows(_split_file(directory, name))
    return hub.load_split(data.dataset, data.config_name, data.revision, name)


def _directory(data: DataConfig) -> Path | None:
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


# ---------------------------------------------------------------- rows and labels


def _examples(
    data: DataConfig, split: Split, source: Sequence[Row], indices: Sequence[int]
) -> list[Example]:
    if not indices:
        return []
    columns = _columns(data, split, source[indices[0]])
    examples: list[Example] = []
    faults: list[str] = []
    for index in indices:
        row = source[index]
        texts = [row.get(columns[key]) for key in ("premise", "hypothesis")]
        label = _label(row.get(columns["label"]), data)
        if label is None:
            faults.append(f"row {index}: label {row.get(columns['label'])!r}")
        elif not all(_is_text(text) for text in texts) and label != UNLABELLED:
            faults.append(f"row {index}: premise or hypothesis is not a text")
        else:
            examples.append(Example(index, str(texts[0]), str(texts[1]), label))
    if faults:
        raise NotAvailableError(
            f"{data.dataset}, split {split}: {plural(len(faults), 'row')} cannot be used "
            f"({'; '.join(faults[:SHOWN_FAULTS])}{'; ...' if len(faults) > SHOWN_FAULTS else ''})",
            f"labels are 0 to {len(data.label_names) - 1}, {', '.join(data.label_names)}, or -1; "
            "map others with data.label_map",
        )
    return examples


def _is_text(value: Any) -> bool:
    """Whether a value is valid text. JSON can also encode lone surrogates, which are not."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _columns(data: DataConfig, split: Split, row: Row) -> dict[str, str]:
    """Return the column names: the recipe's, or the original corpus's if the source has those."""
    asked = {
        "premise": data.premise_column,
        "hypothesis": data.hypothesis_column,
        "label": data.label_column,
    }
    for columns in (asked, CORPUS_COLUMNS):
        if all(name in row for name in columns.values()):
            return columns
    missing = ", ".join(name for name in asked.values() if name not in row)
    raise NotAvailableError(
        f"{data.dataset}, split {split}: no column {missing}; the columns are {', '.join(row)}",
        "set data.premise_column, data.hypothesis_column and data.label_column",
    )


def _label(value: Any, data: DataConfig) -> int | None:
    """Return the label number of a source value; -1 for unlabelled, None for an unknown value."""
    text = str(value).strip()
    if text in data.label_map:
        return data.label_map[text]
    if text in data.label_names:
        return data.label_names.index(text)
    if text in ("-", str(UNLABELLED)):
        return UNLABELLED
    if text.isdecimal() and int(text) < len(data.label_names):
        return int(text)
    return None


# ---------------------------------------------------------------- checks


def _warnings(
    data: DataConfig, split: Split, manifest: SplitManifest, examples: Sequence[Example]
) -> list[str]:
    warnings = []
    wanted = data.split_size(split)
    if wanted.size and wanted.size > manifest.source_rows:
        warnings.append(
            f"{split}: {wanted.size:,} rows were requested, but the split has "
            f"{manifest.source_rows:,}; all were taken"
        )
    absent = [n for n, c in zip(data.label_names, manifest.class_counts, strict=True) if c == 0]
    if absent:
        warnings.append(f"{split}: no row is labelled {', '.join(absent)}")
    blank = sum(not e.premise.strip() or not e.hypothesis.strip() for e in examples)
    if blank:
        warnings.append(f"{split}: {plural(blank, 'row')} with an empty premise or hypothesis")
    return warnings


def _shared_premises(examples: Mapping[str, Sequence[Example]]) -> dict[str, int]:
    premises = {split: {e.premise for e in rows} for split, rows in examples.items()}
    return {f"{a}+{b}": len(premises[a] & premises[b]) for a, b in combinations(premises, 2)}


def _rows_hash(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for e in examples:
        line = json.dumps([e.premise, e.hypothesis, e.label], ensure_ascii=False)
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _ordinal(n: int) -> str:
    if n % 100 in (11, 12, 13):
        return f"{n}th"
    return f"{n}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th') }"
