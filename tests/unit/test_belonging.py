"""A run is reported on only if its stages are complete, whole, and belong together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nlijob import records
from nlijob.belonging import changed_files, doubts
from nlijob.records.job import RunRecord
from nlijob.rundir import RunDir, epoch_marker, write_record
from nlijob.stages import STAGE_NAMES
from tests.synthetic import Spec, build_run, finish, mark_stages


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return build_run(tmp_path / "run", Spec(epochs=2))


def texts(run: RunDir, with_report: bool = False) -> list[str]:
    return [doubt.text for doubt in doubts(run, with_report)]


def with_settings(run: RunDir, section: str, **settings: object) -> None:
    """Change config.json alone, as a job does that is stopped before its first stage."""
    record = records.read(RunRecord, run.config)
    changed = replace(getattr(record.config, section), **settings)
    write_record(run.config, replace(record, config=replace(record.config, **{section: changed})))


def mark_as_of(run: RunDir, stage: str, of: str) -> None:
    """Mark a stage as one that followed other stages than those in the folder."""
    marker = run.read_marker(stage)
    assert marker is not None
    assert marker.inputs is not None
    files = [run.root / name for name in marker.files]
    run.mark_complete(stage, replace(marker.inputs, follows={of: "another"}), files)


def test_the_stages_of_one_job_belong_together(run: RunDir) -> None:
    finish(run)
    assert doubts(run, with_report=True) == changed_files(run) == []


def test_a_run_on_other_gpus_than_its_configuration_names_is_whole(run: RunDir) -> None:
    with_settings(run, "machine", gpus=4, share="steps")
    finish(run)
    assert doubts(run, with_report=True) == []


def test_a_setting_that_differs_is_named_with_both_values(run: RunDir) -> None:
    with_settings(run, "train", learning_rate=0.003)
    text = "train: train.learning_rate is 0.0002 in its marker and 0.003 in config.json"
    assert texts(run) == [text]


def test_every_stage_that_reads_a_changed_setting_is_named(run: RunDir) -> None:
    with_settings(run, "train", seed=7)
    assert [text.partition(":")[0] for text in texts(run)] == ["baseline", "train"]


def test_many_differing_settings_are_cut_short(run: RunDir) -> None:
    names = {f"{split}_split": "other" for split in ("train", "validation", "test")}
    columns = {f"{name}_column": "other" for name in ("premise", "hypothesis", "label")}
    with_settings(run, "data", **names, **columns)
    assert texts(run)[0].endswith("; and 1 more")


@pytest.mark.parametrize(
    ("stage", "of"), [("baseline", "subset"), ("select", "train"), ("evaluate", "select")]
)
def test_a_stage_made_from_another_one_is_named(run: RunDir, stage: str, of: str) -> None:
    mark_as_of(run, stage, of)
    assert f"{stage} was made from another {of} than the one in the folder" in texts(run)


def test_models_of_two_stages_that_differ_are_noticed(run: RunDir) -> None:
    marker = run.read_marker("baseline")
    assert marker is not None
    assert marker.inputs is not None
    run.mark_complete("baseline", replace(marker.inputs, stamp="another model"), [])
    assert "train: the files outside the run that it reads have changed" in texts(run)


@pytest.mark.parametrize("stage", STAGE_NAMES[:-1])
def test_a_stage_that_is_not_complete_is_named(run: RunDir, stage: str) -> None:
    run.unmark(stage)
    assert texts(run) == [f"{stage} is not complete"]


def test_a_marker_that_cannot_be_read_counts_as_none(run: RunDir) -> None:
    run.marker("select").write_bytes(b"\xff{")
    run.unmark("evaluate")
    assert texts(run) == ["select and evaluate are not complete"]


def test_the_report_is_asked_for_only_where_it_is_read(run: RunDir) -> None:
    assert texts(run) == []
    assert texts(run, with_report=True) == ["report is not complete"]


def test_an_epoch_of_another_training_is_named(run: RunDir) -> None:
    marker = run.read_marker(epoch_marker(2))
    assert marker is not None
    assert marker.inputs is not None
    run.mark_complete(epoch_marker(2), replace(marker.inputs, stamp="another model"), [])
    assert texts(run) == ["epoch 2 is of another training"]


def test_an_epoch_that_is_missing_is_named(run: RunDir) -> None:
    run.unmark(epoch_marker(1))
    assert texts(run) == ["epoch 1 of train is not complete"]


def test_a_configuration_that_cannot_be_read_is_a_doubt(run: RunDir) -> None:
    run.config.write_text("[" * 100_000)
    (doubt,) = doubts(run)
    assert (doubt.kind, doubt.text) == ("damaged", "config.json cannot be read: nested too deeply")


@pytest.mark.parametrize(
    "name",
    [
        *("subset/train.jsonl", "baseline/predictions.jsonl", "prompt.json", "selection.json"),
        *("train/log.jsonl", "evaluate/occlusion.jsonl", "environment.json"),
        "train/epoch-1/predictions.jsonl",
    ],
)
def test_a_flipped_byte_in_a_file_is_found(run: RunDir, name: str) -> None:
    content = bytearray((run.root / name).read_bytes())
    content[len(content) // 2] ^= 1
    (run.root / name).write_bytes(content)
    (doubt,) = changed_files(run)
    assert doubt.text.endswith(f": {name} is missing or has changed since it was written")


def test_a_stage_marked_again_belongs_to_the_rest(run: RunDir) -> None:
    run.selection.write_text(run.selection.read_text() + "\n")
    mark_stages(run)
    assert changed_files(run) == []
