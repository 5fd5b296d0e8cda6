"""The data set and the rows that were used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nlijob.analysis.columns import SHOWN_COLUMNS, shown_name
from nlijob.analysis.wording import count, listed, share_of
from nlijob.records.job import SPLITS, Manifest, SplitManifest
from nlijob.records.outcome import Results
from nlijob.report.view.parts import Column, Fact, Row, Table, View, columns, row, text_columns
from nlijob.report.view.text import visible


def data_section(results: Results) -> View:
    """Source, selection, labels, what splits share, repetition, and hashes."""
    manifest = results.manifest
    splits = [manifest.splits[split] for split in SPLITS if split in manifest.splits]
    return View(
        facts=(
            Fact("data set", manifest.dataset),
            Fact("revision", manifest.revision or "not pinned"),
            Fact("configuration", manifest.config_name or "none"),
            Fact("labels", visible(", ".join(manifest.label_names)), _labels_note(splits)),
            *_reading_facts(splits),
        ),
        rows=_rows_table(splits),
        classes=_classes_table(splits, manifest.label_names),
        shared=_shared_table(manifest),
        overlaps=_overlaps_table(manifest),
        repetition=_repetition_table(splits),
        hashes=Table(
            "SHA-256 of the rows kept",
            text_columns("of", "hash"),
            tuple(_hash_rows(splits)),
        ),
        hashes_note=_hashes_note(splits),
    )


def _labels_note(splits: Sequence[SplitManifest]) -> str:
    """How integer labels were read, told once where it is the same for all splits."""
    read = {split.split: visible(split.labels_read) for split in splits if split.labels_read}
    told = set(read.values())
    if len(told) == 1 and len(read) == len(splits):
        return told.pop()
    return "; ".join(f"{split}: {text}" for split, text in read.items())


def _reading_facts(splits: Sequence[SplitManifest]) -> Iterator[Fact]:
    """What a reader would not expect of the files; nothing where there is nothing."""
    for split in splits:
        if split.origin:
            yield Fact(f"{split.split} rows", visible(split.origin))
    for split in splits:
        if split.annotator_columns:
            yield Fact("annotators' labels", _names(split.annotator_columns), split.split)
        if split.further_columns:
            yield Fact("further columns", _names(split.further_columns), split.split)
    blank = [
        f"{count(split.blank_lines)} in {split.split}" for split in splits if split.blank_lines
    ]
    if blank:
        yield Fact("blank lines, skipped", ", ".join(blank))
    for split in splits:
        if split.fields_over_lines:
            lines = ", ".join(map(str, split.first_fields_over_lines))
            more = split.fields_over_lines > len(split.first_fields_over_lines)
            yield Fact(
                f"fields with line breaks, {split.split}",
                count(split.fields_over_lines),
                f"in the rows at lines {lines}{', ...' if more else ''}",
            )


def _names(names: Sequence[str]) -> str:
    """Columns by name, the first ones of many."""
    more = [f"{count(len(names) - SHOWN_COLUMNS)} more"] if len(names) > SHOWN_COLUMNS else []
    return listed([*map(shown_name, names[:SHOWN_COLUMNS]), *more])


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


def _overlaps_table(manifest: Manifest) -> Table | None:
    if not manifest.overlaps:
        return None
    return Table(
        "Rows that also stand in another split (differences in white space are ignored)",
        columns("rows", "same premise", "same premise and hypothesis", "of these, other label"),
        tuple(
            row(
                f"{one.split} rows in {one.other}",
                share_of(one.rows_with_premise, one.rows),
                share_of(one.whole_rows, one.rows),
                count(one.other_label),
            )
            for one in manifest.overlaps
        ),
    )


def _hash_rows(splits: Sequence[SplitManifest]) -> Iterator[Row]:
    for split in splits:
        if split.file_sha256:
            yield row(f"subset/{split.split}.jsonl", split.file_sha256)
    for split in splits:
        yield row(f"the {split.split} rows", split.rows_sha256)


def _hashes_note(splits: Sequence[SplitManifest]) -> str:
    """How a reader finds the hashes again."""
    of_rows = (
        "The hash of the rows is that of a line for each row: a JSON list of premise, hypothesis "
        "and label number, in UTF-8. The same rows in the same order have the same hash, whatever "
        "else their files hold."
    )
    if not all(split.file_sha256 for split in splits):
        return of_rows
    return (
        "The hash of a file is what sha256sum gives in the run's folder. "
        f"{of_rows} Runs are compared by it."
    )


def _repetition_table(splits: Sequence[SplitManifest]) -> Table | None:
    known = [(split, split.repetition) for split in splits if split.repetition]
    if not known:
        return None
    return Table(
        "Repetition within a split (differences in white space are ignored)",
        columns("split", "different premises", "rows repeated", "rows with other labels too"),
        tuple(
            row(
                split.split,
                count(repetition.premises),
                count(repetition.repeated_rows),
                count(repetition.contradictory_rows),
            )
            for split, repetition in known
        ),
    )
