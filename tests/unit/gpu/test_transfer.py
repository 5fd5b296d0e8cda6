"""The GPU side scores the base model and the tuned model on further test sets.

A tiny job runs within this process; it has a training of one epoch on a few rows.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nlijob import records
from nlijob.config import JobConfig, TransferConfig, load_config
from nlijob.data.elsewhere import read_elsewhere
from nlijob.data.sources import read_file
from nlijob.demo import DATA_DIR, MODEL_DIR
from nlijob.errors import ExitCode
from nlijob.fingerprints import stage_inputs
from nlijob.gpu import session, worker
from nlijob.hub import Hub
from nlijob.records.job import (
    SPLITS,
    Example,
    Prediction,
    Progress,
    RunRecord,
    WorkerOutcome,
    WorkerTask,
)
from nlijob.records.transfer import TransferPrediction
from nlijob.records.use import AdapterRecord
from nlijob.rundir import RunDir, epoch_marker, write_record, write_records
from nlijob.stages import GPU_STAGES
from tests.loading import Loader, MetaBuilder

ROWS = 6
SETTINGS: dict[str, Any] = {
    "train.epochs": 1,
    "train.batch_size": 2,
    "model.device": "cpu",
    "eval.generate_tokens": 0,
    "eval.word_importance": False,
    "eval.blank_premise": False,
}


@pytest.fixture(scope="module", autouse=True)
def _loaded_quickly(load_model: Loader) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "load", load_model)
        patch.setattr(session, "meta_model", MetaBuilder())
        patch.setattr(os, "fsync", lambda descriptor: None)  # nobody pulls the plug
        yield


def rows_of(split: str) -> list[Example]:
    rows = [(i, row) for i, row in enumerate(read_file(DATA_DIR / f"{split}.jsonl").rows)]
    labelled = [(i, row) for i, row in rows if row["label"] >= 0][:ROWS]
    return [Example(i, r["premise"], r["hypothesis"], r["label"]) for i, r in labelled]


def a_set(folder: Path, name: str, *more: str) -> TransferConfig:
    """A set of the run's own test rows, with two labels."""
    rows = [(row.premise, row.hypothesis, row.label) for row in rows_of("test")]
    rows += [(text, "Somebody speaks.", 0) for text in more]
    labels = ("entailment", "non-entailment", "non-entailment")
    lines = (
        json.dumps({"premise": premise, "hypothesis": hypothesis, "label": labels[label]})
        for premise, hypothesis, label in rows
    )
    file = folder / f"{name}.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return TransferConfig(name, str(file))


def work(run: RunDir, *sets: TransferConfig, **settings: Any) -> WorkerOutcome:
    """Read the sets and do the run's GPU stages."""
    named = {key.replace("__", "."): value for key, value in settings.items()}
    config = replace(load_config("demo", {**SETTINGS, **named}), transfer=sets)
    write_record(run.config, RunRecord("job", "demo", config, (), "2026-01-01", "0"))
    read_elsewhere(config, run, Hub(True, print))
    write_record(run.worker_task, task(config))
    run.progress.unlink(missing_ok=True)
    return worker.work(run)


def task(config: JobConfig) -> WorkerTask:
    inputs = stage_inputs(config, {"data": "", "model": ""})
    return WorkerTask(1, 0.0, 0.0, str(MODEL_DIR), "", inputs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sets")


@pytest.fixture(scope="module")
def run(folder: Path) -> RunDir:
    """A run that was finished without a set; a set was then added to it."""
    run = RunDir(folder / "job")
    for split in SPLITS:
        write_records(run.subset(split), rows_of(split))
    assert work(run).exit_code == ExitCode.DONE
    trained = run.marker(epoch_marker(1)).stat().st_mtime_ns
    assert work(run, a_set(folder, "near")).exit_code == ExitCode.DONE
    assert run.marker(epoch_marker(1)).stat().st_mtime_ns == trained
    return run


@pytest.fixture
def copy(run: RunDir, tmp_path: Path) -> RunDir:
    """The run for a test that does it again."""
    return RunDir(shutil.copytree(run.root, tmp_path / "copy"))


def test_a_set_that_is_added_to_a_finished_run_is_scored_without_a_new_training(
    run: RunDir,
) -> None:
    skipped = {
        line.stage
        for line in records.read_lines(Progress, run.progress)
        if line.note == "complete, skipped"
    }
    assert skipped == {"train", "select"}
    assert {*GPU_STAGES} <= {*run.marked()}


@pytest.mark.parametrize("model", ["base", "tuned"])
def test_a_model_answers_a_set_as_it_answers_the_same_test_rows(run: RunDir, model: str) -> None:
    own, there = {
        "base": (run.baseline_predictions, run.baseline_transfer("near")),
        "tuned": (run.evaluate_predictions, run.evaluate_transfer("near")),
    }[model]
    known = [row for row in records.read_lines(Prediction, own) if row.split == "test"]
    answers = [*records.read_lines(TransferPrediction, there)]
    assert [one.probabilities for one in answers] == [
        pytest.approx(one.probabilities, abs=1e-6) for one in known
    ]
    assert [one.tokens for one in answers] == [one.tokens for one in known]


def test_the_markers_list_the_answers(run: RunDir) -> None:
    for stage in ("baseline", "evaluate"):
        marker = run.read_marker(stage)
        assert marker is not None
        assert f"{stage}/transfer/near.jsonl" in marker.files


def test_the_adapter_s_record_does_not_name_the_sets(run: RunDir) -> None:
    assert records.read(AdapterRecord, run.adapter_record).config.transfer == ()


def test_a_row_that_is_too_long_is_an_error_that_names_the_set(copy: RunDir, folder: Path) -> None:
    outcome = work(copy, a_set(folder, "long", "word " * 600))
    assert outcome.exit_code == ExitCode.NOT_AVAILABLE
    assert outcome.message.startswith("transfer set long: 1 prompt longer than the model's")


def test_rows_that_are_too_long_are_left_out_where_that_is_asked_for(
    copy: RunDir, folder: Path
) -> None:
    sets = a_set(folder, "dropped", "word " * 600)
    assert work(copy, sets, model__too_long="drop").exit_code == ExitCode.DONE
    assert len([*records.read_lines(TransferPrediction, copy.baseline_transfer("dropped"))]) == ROWS
    notes = [line.note for line in records.read_lines(Progress, copy.progress)]
    assert f"dropped: 1 of {ROWS + 1} rows too long for the model, left out" in notes
