"""The subset stage: selects rows of each split, drops unlabelled ones, writes rows and manifest.

A stride selects rows 0, k, 2k, ... of the split in its stored order; a size selects that many
evenly spaced rows. Rows labelled -1 (the annotators did not agree) are dropped afterwards and
counted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from nlijob.analysis.wording import count, plural
from nlijob.config import DataConfig, SplitSize
from nlijob.data.beyond import Beyond
from nlijob.data.corpora import find_columns, read_examples
from nlijob.data.further import column_names, writable
from nlijob.data.labels import UNLABELLED
from nlijob.data.overlap import measure_overlaps, measure_repetition, shared_premises
from nlijob.data.splits import Opened, OpenedSplit, label_warnings, open_splits
from nlijob.data.table import Table
from nlijob.errors import NotAvailableError
from nlijob.hub import Hub
from nlijob.records.job import SPLITS, Example, Manifest, Split, SplitManifest
from nlijob.rundir import RunDir, write_record, write_records

FEW_ROWS = 100
"""A stride that leaves fewer rows than this, of a split with more, was meant for a larger one."""


class Taken(NamedTuple):
    """The rows taken from a split."""

    manifest: SplitManifest
    examples: list[Example]
    warnings: list[str]


def build_subset(data: DataConfig, run: RunDir, hub: Hub, opened: Opened | None = None) -> Manifest:
    """Write subset/<split>.jsonl for the three splits, then subset/manifest.json.

    `opened`: the splits, where they have been opened before. Raises NotAvailableError if the data
    are not available, a label is out of range, or no labelled row of a split is left.
    """
    opened = opened or open_splits(data, hub)
    taken = {split: take_split(data, split, opened[split]) for split in SPLITS}
    examples = {split: one.examples for split, one in taken.items()}
    for split, rows in examples.items():
        write_records(run.subset(split), rows)
    manifest = Manifest(
        dataset=data.dataset,
        revision=data.revision,
        config_name=data.config_name,
        label_names=data.label_names,
        splits={
            split: replace(one.manifest, file_sha256=run.sha256_of(run.subset(split)))
            for split, one in taken.items()
        },
        shared_premises=shared_premises(examples),
        warnings=(
            *label_warnings(data, opened),
            *(warning for one in taken.values() for warning in one.warnings),
        ),
        overlaps=measure_overlaps(examples),
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


def take_split(data: DataConfig, split: Split, opened: OpenedSplit) -> Taken:
    """The rows of a split that the configuration asks for, and what there is to say of them.

    Raises NotAvailableError if a row cannot be used, or if no labelled one is left.
    """
    table = opened.table
    source_rows = len(table)
    indices = chosen_indices(source_rows, data.split_size(split))
    beyond = Beyond() if split == "test" else None  # only test rows are told apart by it
    examples, labels_read = read_examples(data, split, table, indices, beyond)
    labelled = [example for example in examples if example.label != UNLABELLED]
    if not labelled:
        raise _no_rows(data, split, source_rows, len(indices))
    labelled, unused = beyond.settled(labelled) if beyond else (labelled, [])
    manifest = SplitManifest(
        split=split,
        source_rows=source_rows,
        rule=rule_text(data.split_size(split)),
        selected=len(indices),
        unlabelled_dropped=len(examples) - len(labelled),
        rows=len(labelled),
        class_counts=tuple(
            sum(example.label == label for example in labelled)
            for label in range(len(data.label_names))
        ),
        rows_sha256=_rows_hash(labelled),
        indices=tuple(example.index for example in labelled),
        labels_read=labels_read,
        blank_lines=table.blank_lines,
        fields_over_lines=table.fields_over_lines.count,
        first_fields_over_lines=table.fields_over_lines.first,
        repetition=measure_repetition(labelled),
        further_columns=column_names(labelled),
        annotator_columns=tuple(map(writable, beyond.annotators.columns)) if beyond else (),
        origin=opened.origin,
        files=table.files,
        columns=tuple(find_columns(data, table.columns) or ()),
    )
    warnings = [*_warnings(data, manifest, table, labelled), *(f"{split}: {w}" for w in unused)]
    return Taken(manifest, labelled, warnings)


def _no_rows(data: DataConfig, split: Split, source: int, selected: int) -> NotAvailableError:
    where = f"{data.dataset}, split {data.split_name(split)}"
    if not source:
        return NotAvailableError(
            f"{where}: the source has no rows", "the file is empty, or holds a header alone"
        )
    return NotAvailableError(
        f"{where}: no labelled row is left ({plural(source, 'row')}, {selected:,} selected)",
        f"check the labels, {data.key(f'{split}_stride')} and {data.key(f'{split}_size')}",
    )


# ---------------------------------------------------------------- checks


def _warnings(
    data: DataConfig, manifest: SplitManifest, table: Table, examples: Sequence[Example]
) -> list[str]:
    warnings = []
    split = manifest.split
    wanted = data.split_size(split)
    if wanted.size and wanted.size > manifest.source_rows:
        warnings.append(
            f"{split}: {wanted.size:,} rows were requested, but the split has "
            f"{manifest.source_rows:,}; all were taken"
        )
    if wanted.stride is not None and manifest.selected < FEW_ROWS <= manifest.source_rows:
        warnings.append(
            f"{split}: {manifest.rule} is {count(manifest.selected)} of "
            f"{count(manifest.source_rows)}; {data.size_option(split)} takes more of a small data "
            "set"
        )
    absent = [n for n, c in zip(data.label_names, manifest.class_counts, strict=True) if c == 0]
    if absent:
        warnings.append(f"{split}: no row is labelled {', '.join(absent)}")
    blank = sum(not e.premise.strip() or not e.hypothesis.strip() for e in examples)
    if blank:
        warnings.append(f"{split}: {plural(blank, 'row')} with an empty premise or hypothesis")
    if rows := table.perhaps_joined.count:
        first = table.perhaps_joined.first
        lines = ", ".join(map(str, first))
        warnings.append(
            f"{split}: stray quotes may have joined rows of the CSV file: {plural(rows, 'row')} "
            f"(at line {lines}{', ...' if rows > len(first) else ''}) with a quoted field over "
            "several lines, each of which looks like a row"
        )
    return warnings


def _rows_hash(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    encode = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make one for each row
    for e in examples:
        line = encode([e.premise, e.hypothesis, e.label])
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _ordinal(n: int) -> str:
    if n % 100 in (11, 12, 13):
        return f"{n}th"
    return f"{n}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th') }"
