"""The GPU side's stages on a few rows of the demo, in the test's process.

Checkpoints within epochs are written after every step, and at once instead of in the background,
so that it is known which one is the latest.
"""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest

from nlijob import records
from nlijob.config import JobConfig, load_config
from nlijob.data.sources import read_file
from nlijob.demo import DATA_DIR, MODEL_DIR
from nlijob.fingerprints import stage_inputs
from nlijob.gpu import worker
from nlijob.records.job import SPLITS, Example, Progress, RunRecord, TrainStep, WorkerTask
from nlijob.rundir import RunDir, append_record, write_record, write_records
from nlijob.stopping import Stopped

TRAIN_STAGE = importlib.import_module("nlijob.gpu.stages.train")
ROWS = {"train": 12, "validation": 4, "test": 4}
STEPS = 6
"""Steps of an epoch."""
SETTINGS: dict[str, Any] = {
    "train.epochs": 2,
    "train.batch_size": 2,
    "train.checkpoint_every_s": 1e-9,
    "lora.dropout": 0.2,
    "model.device": "cpu",
    "eval.generate_tokens": 0,
    "eval.word_importance": False,
    "eval.blank_premise": False,
}


def new_run(root: Path) -> RunDir:
    """A run whose rows are there, and nothing else."""
    run = RunDir(root)
    for split in SPLITS:
        rows = read_file(DATA_DIR / f"{split}.jsonl").rows
        labelled = [(i, row) for i, row in enumerate(rows) if row["label"] >= 0][: ROWS[split]]
        examples = [Example(i, r["premise"], r["hypothesis"], r["label"]) for i, r in labelled]
        write_records(run.subset(split), examples)
    return run


def work(run: RunDir, attempt: int = 1, **settings: Any) -> list[str]:
    """Do the run's GPU stages; returns the lines that the user sees."""
    given(run, attempt, **settings)
    outcome = worker.work(run)
    assert (outcome.exit_code, outcome.message) == (0, "")
    return [line.note for line in records.read_lines(Progress, run.progress) if not line.unit]


def given(run: RunDir, attempt: int = 1, **settings: Any) -> None:
    """Write the task of the run's GPU stages."""
    config = configuration(**settings)
    write_record(run.config, RunRecord("job", "demo", config, (), "2026-01-01", "0"))
    task = WorkerTask(
        attempt=attempt,
        launched_at_s=0.0,
        given_at_s=0.0,
        model_dir=str(MODEL_DIR),
        model_stamp="",
        inputs=stage_inputs(config, {"data": "", "model": ""}),
    )
    write_record(run.worker_task, task)
    run.progress.unlink(missing_ok=True)


def configuration(**settings: Any) -> JobConfig:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return load_config("demo", {**SETTINGS, **named})


def interrupt(
    run: RunDir, after: int, patch: pytest.MonkeyPatch, training: str = "", **settings: Any
) -> None:
    """Do the run until this many steps of a training are logged; the checkpoint is one step older.

    `training`: its folder, where the run has several.
    """
    own_log = run.view(training).train_log

    def logged(path: Path, step: Any) -> None:
        append_record(path, step)
        if step.step == after and path == own_log:
            raise Stopped("as a test wants it")

    with patch.context() as patched:
        patched.setattr(TRAIN_STAGE, "append_record", logged)
        with pytest.raises(Stopped):
            work(run, **settings)


def steps(run: RunDir) -> list[TrainStep]:
    return [timeless(step) for step in records.read_lines(TrainStep, run.train_log)]


def timeless(record: Any) -> Any:
    return dataclasses.replace(record, duration_s=0.0)
