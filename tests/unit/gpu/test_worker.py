"""Which epochs the GPU side goes on from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nlijob.config import load_config
from nlijob.gpu.worker import Worker
from nlijob.rundir import RunDir
from tests.faulty_place import complete_epoch


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    """A worker for two epochs of fingerprint "a", with no model."""
    worker = Worker.__new__(Worker)
    worker.run = RunDir(tmp_path)
    worker.config = load_config("demo", {"train.epochs": 2})
    task: Any = SimpleNamespace(fingerprints={"train": "a"})
    worker.task = task
    return worker


def test_epochs_of_other_inputs_lose_their_markers_before_they_are_done_anew(
    worker: Worker,
) -> None:
    # Else files of the new training would stand under a marker of the old one for a while, and
    # who goes back to the old inputs then would take them for its own.
    trainer: Any = None
    for epoch in (1, 2):
        complete_epoch(worker.run, epoch, "b")
    assert worker._resume(trainer) == []
    assert [e for e in (1, 2) if worker.run.marker(f"train-epoch-{e}").exists()] == []
