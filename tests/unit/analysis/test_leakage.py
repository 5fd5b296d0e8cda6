"""Leaks are told first where they matter, and small ones last."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nlijob.analysis.leakage import leakage_warnings, overlap_warnings
from nlijob.analysis.outcome import build_results
from nlijob.records.job import Manifest, Repetition, Split, SplitManifest, SplitOverlap
from nlijob.records.serialization import read
from nlijob.rundir import write_record
from tests.synthetic import Spec, build_run


def overlap(split: Split, other: Split, whole: int, rows: int = 1000, **more: Any) -> SplitOverlap:
    return SplitOverlap(
        split,
        other,
        rows,
        rows_with_premise=more.get("premise", whole),
        whole_rows=whole,
        other_label=more.get("other_label", 0),
        is_same=more.get("is_same", False),
    )


def manifest(
    *overlaps: SplitOverlap, train: Repetition | None = None, test: Repetition | None = None
) -> Manifest:
    repetition: dict[Split, Repetition | None] = {"train": train, "test": test}
    splits: dict[str, SplitManifest] = {
        split: SplitManifest(
            split, 1000, "all rows", 1000, 0, 1000, (1000,), "", (), repetition=repetition[split]
        )
        for split in repetition
    }
    return Manifest("data", None, None, ("a",), splits, {}, (), overlaps)


def first(*overlaps: SplitOverlap) -> list[str]:
    return [finding.code for finding in leakage_warnings(manifest(*overlaps))]


def later(
    *overlaps: SplitOverlap, train: Repetition | None = None, test: Repetition | None = None
) -> list[str]:
    made = manifest(*overlaps, train=train, test=test)
    return [finding.code for finding in overlap_warnings(made)]


@pytest.mark.parametrize("other", ["train", "validation"])
@pytest.mark.parametrize(("whole", "comes_first"), [(0, None), (1, False), (4, False), (5, True)])
def test_whole_test_rows_come_first_from_half_a_percent(
    other: Split, whole: int, comes_first: bool | None
) -> None:
    code = {"train": "test-rows-in-training", "validation": "test-rows-in-validation"}[other]
    one = overlap("test", other, whole)
    assert first(one) == ([code] if comes_first else [])
    assert later(one) == ([code] if comes_first is False else [])


def test_one_of_a_hundred_test_rows_matters() -> None:
    assert first(overlap("test", "train", 1, rows=100)) == ["test-rows-in-training"]


def test_a_leak_is_the_first_warning_of_a_report(tmp_path: Path) -> None:
    run = build_run(tmp_path, Spec(rows=14, train_rows=40, epochs=2, resumed=False))
    plain = read(Manifest, run.manifest)
    leak = overlap("test", "validation", 14, rows=14, is_same=True)
    write_record(run.manifest, replace(plain, overlaps=(leak,)))
    assert build_results(run).warnings[0].code == "test-rows-in-validation"


def test_the_text_names_the_rows_their_labels_and_the_way_out() -> None:
    (finding,) = leakage_warnings(manifest(overlap("test", "train", 250, other_label=3)))
    assert finding.figures == {"rows": 1000, "whole_rows": 250, "other_label": 3}
    assert finding.text.startswith("250 of 1,000 test rows (25.0 %) also stand in training")
    assert "3 of them with another label" in finding.text
    assert "data.test_split" in finding.text


def test_a_test_split_that_is_the_validation_split_is_called_so() -> None:
    one = overlap("test", "validation", 1000, is_same=True)
    (finding,) = leakage_warnings(manifest(one))
    assert finding.text.startswith("The test rows are the validation rows: the epoch is selected")


def test_validation_rows_in_training_come_later() -> None:
    one = overlap("validation", "train", 10)
    assert first(one) == []
    assert later(one) == ["validation-rows-in-training"]
    assert later(overlap("validation", "train", 4)) == []


@pytest.mark.parametrize(("premise", "codes"), [(49, []), (50, ["test-premises-in-training"])])
def test_shared_premises_are_told_from_a_twentieth(premise: int, codes: list[str]) -> None:
    assert later(overlap("test", "train", 0, premise=premise)) == codes


def test_premises_of_whole_rows_are_not_told_twice() -> None:
    assert later(overlap("test", "train", 500, premise=500)) == []


def test_repetition_is_told_from_a_hundredth() -> None:
    some, few = Repetition(900, 10, 10), Repetition(900, 9, 9)
    assert later(test=some) == ["repeated-rows", "contradictory-rows"]
    assert later(train=some) == ["contradictory-rows"]
    assert later(test=few, train=few) == []


def test_nothing_is_told_of_runs_that_did_not_count() -> None:
    assert first() == []
    assert later() == []
