"""The data section states how labels and files were read, and what splits share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nlijob.analysis.outcome import build_results
from nlijob.records.job import Manifest, SplitManifest
from nlijob.records.outcome import Results
from nlijob.report.view.data import data_section
from nlijob.report.view.parts import View
from tests.synthetic import Spec, build_run


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    spec = Spec(rows=14, train_rows=40, epochs=2, resumed=False)
    return build_results(build_run(Path(tmp_path_factory.mktemp("data")), spec))


def section(results: Results, change: Callable[[SplitManifest], SplitManifest]) -> View:
    splits = {name: change(split) for name, split in results.manifest.splits.items()}
    return data_section(replace(results, manifest=replace(results.manifest, splits=splits)))


LABELS = "entailment, neutral, contradiction"


def facts(view: View) -> dict[str, tuple[str, str]]:
    return {fact.name: (fact.value, fact.note) for fact in view.facts}


def test_labels_read_alike_in_all_splits_are_told_once(results: Results) -> None:
    view = section(results, lambda split: replace(split, labels_read="0 = neutral"))
    assert facts(view)["labels"] == (LABELS, "0 = neutral")


def test_labels_read_in_different_ways_are_told_for_each_split(results: Results) -> None:
    view = section(results, lambda split: replace(split, labels_read=f"as {split.split} says"))
    assert facts(view)["labels"][1] == (
        "train: as train says; validation: as validation says; test: as test says"
    )


def test_fields_with_line_breaks_are_told_with_their_lines(results: Results) -> None:
    view = section(
        results, lambda split: replace(split, fields_over_lines=7, first_fields_over_lines=(3, 9))
    )
    assert facts(view)["fields with line breaks, test"] == (
        "7",
        "in the rows at lines 3, 9, ...",
    )


def test_blank_lines_are_told_where_there_are_any(results: Results) -> None:
    view = section(results, lambda split: replace(split, blank_lines=split.split == "train"))
    assert facts(view)["blank lines, skipped"][0] == "1 in train"
    assert "blank lines, skipped" not in facts(
        section(results, lambda split: replace(split, blank_lines=0))
    )


def test_it_is_told_where_rows_come_from_if_not_from_the_split_of_their_name(
    results: Results,
) -> None:
    view = section(
        results,
        lambda split: replace(split, origin="read from dev" if split.split == "validation" else ""),
    )
    assert facts(view)["validation rows"][0] == "read from dev"
    assert {"train rows", "test rows"}.isdisjoint(facts(view))


def test_rows_in_two_splits_are_a_table(results: Results) -> None:
    rows = {row.cells[0]: row.cells[1:] for row in data_section(results).overlaps.rows}
    assert list(rows) == [
        "test rows in train",
        "test rows in validation",
        "validation rows in train",
    ]
    one = results.manifest.overlaps[0]
    assert rows["test rows in train"][1].endswith(f"({one.whole_rows} of 14)")


def test_a_run_that_did_not_count_shows_neither_table(results: Results) -> None:
    def older(manifest: Manifest) -> Manifest:
        splits = {
            name: replace(split, repetition=None, labels_read="", blank_lines=None)
            for name, split in manifest.splits.items()
        }
        return replace(manifest, splits=splits, overlaps=())

    view = data_section(replace(results, manifest=older(results.manifest)))
    assert view.overlaps is None
    assert view.repetition is None
    assert facts(view)["labels"] == (LABELS, "")
    assert not [name for name in facts(view) if "line" in name]


def test_columns_that_test_rows_keep_are_named_and_cut(results: Results) -> None:
    names = ("\u202egenre", "x" * 99, *(f"c{i}" for i in range(20)))
    view = section(
        results,
        lambda split: (
            replace(split, further_columns=names, annotator_columns=("label1", "label2"))
            if split.split == "test"
            else split
        ),
    )
    assert facts(view)["annotators' labels"] == ("label1 and label2", "test")
    text, note = facts(view)["further columns"]
    assert text.startswith(f"\ufffdgenre, {'x' * 59}…, c0, ")
    assert text.endswith("c9 and 10 more")
    assert note == "test"


def test_without_further_columns_nothing_is_said_of_them(results: Results) -> None:
    names = facts(section(results, lambda split: split))
    assert "further columns" not in names
    assert "annotators' labels" not in names


def test_hashes_say_what_they_are_of(results: Results) -> None:
    hashes = section(results, lambda split: split).hashes
    test = results.manifest.splits["test"]
    found = dict(one.cells for one in hashes.rows)
    assert found["subset/test.jsonl"] == test.file_sha256
    assert found["the test rows"] == test.rows_sha256
    assert len(hashes.rows) == 6


def test_a_run_without_hashes_of_its_files_says_how_those_of_the_rows_were_computed(
    results: Results,
) -> None:
    older = section(results, lambda split: replace(split, file_sha256=""))
    assert [one.cells[0] for one in older.hashes.rows] == [
        f"the {split} rows" for split in ("train", "validation", "test")
    ]
    assert "sha256sum" not in older.hashes_note
    assert "a JSON list of premise, hypothesis and label number" in older.hashes_note
