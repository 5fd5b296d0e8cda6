"""The subset stage: selects rows of each split, drops unlabelled ones, writes rows and manifest.

Rows come from a hub data set or from a directory with one file per split. A stride selects rows 0,
k, 2k, ... of the split in its stored order; a size selects that many evenly spaced rows. Rows
labelled -1 (the annotators did not agree) are dropped afterwards and counted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from nlijob.analysis.wording import plural
from nlijob.config import DataConfig, SplitSize
from nlijob.data.corpora import UNLABELLED, read_examples
from nlijob.data.overlap import shared_premises
from nlijob.data.sources import open_split
from nlijob.errors import NotAvailableError
from nlijob.hub import Hub
from nlijob.records.job import SPLITS, Example, Manifest, Split, SplitManifest
from nlijob.rundir import RunDir, write_record, write_records


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
        shared_premises=shared_premises({s: examples for s, (_, examples) in taken.items()}),
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


def _take_split(data: DataConfig, split: Split, hub: Hub) -> tuple[SplitManifest, list[Example]]:
    source = open_split(data, split, hub)
    wanted = data.split_size(split)
    indices = chosen_indices(len(source), wanted)
    examples = read_examples(data, split, source, indices)
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
