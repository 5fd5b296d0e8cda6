"""The data set and the rows that were used."""

from __future__ import annotations

from collections.abc import Sequence

from nlijob.analysis.wording import count, share_of
from nlijob.records.job import SPLITS, Manifest, SplitManifest
from nlijob.records.outcome import Results
from nlijob.report.view.parts import Column, Fact, Table, View, columns, row, text_columns


def data_section(results: Results) -> View:
    """Source, selection, labels, premises shared between splits, and hashes."""
    manifest = results.manifest
    splits = [manifest.splits[split] for split in SPLITS if split in manifest.splits]
    return View(
        facts=(
            Fact("data set", manifest.dataset),
            Fact("revision", manifest.revision or "not pinned"),
            Fact("configuration", manifest.config_name or "none"),
        ),
        rows=_rows_table(splits),
        classes=_classes_table(splits, manifest.label_names),
        shared=_shared_table(manifest),
        hashes=Table(
            "SHA-256 of the rows kept",
            text_columns("split", "hash"),
            tuple(row(split.split, split.rows_sha256) for split in splits),
        ),
    )


def _rows_table(splits: Sequence[SplitManifest]) -> Table:
    return Table(
        "Rows of each split",
        (
            *text_columns("split", "rule"),
            *map(Column, ("in the source", "selected", "unlabelled, dropped", "kept")),
        ),
        tuple(
            row(
                split.split,
                split.rule,
                count(split.source_rows),
                count(split.selected),
                count(split.unlabelled_dropped),
                count(split.rows),
            )
            for split in splits
        ),
    )


def _classes_table(splits: Sequence[SplitManifest], label_names: Sequence[str]) -> Table:
    return Table(
        "Rows of each label",
        columns("split", *label_names),
        tuple(
            row(split.split, *(share_of(n, split.rows) for n in split.class_counts))
            for split in splits
        ),
    )


def _shared_table(manifest: Manifest) -> Table:
    return Table(
        "Premises shared between splits",
        columns("splits", "premises"),
        tuple(
            row(pair.replace("+", " and "), count(number))
            for pair, number in manifest.shared_premises.items()
        ),
    )
