"""The GPU side has the work of every stage, and knows which epochs it can resume from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nlijob.config import load_config
from nlijob.gpu.resuming import Saved, resume
from nlijob.gpu.stages import WORK
from nlijob.rundir import RunDir, epoch_marker
from nlijob.stages import EVERY_STAGE
from tests.faulty_place import complete_epoch
from tests.markers import made_from


def test_every_gpu_stage_of_the_job_has_its_work() -> None:
    assert [*WORK] == [stage.name for stage in EVERY_STAGE if stage.side == "gpu"]


def test_epochs_of_other_inputs_lose_their_markers_before_they_are_done_again(
    tmp_path: Path,
) -> None:
    # Otherwise files of the new training would stay under a marker of the old one for a while, and
    # a run that returns to the old inputs in that time would take them for its own.
    session: Any = SimpleNamespace(
        run=RunDir(tmp_path),
        config=load_config("demo", {"train.epochs": 2}),
        inputs={"train": made_from("a")},
    )
    trainer: Any = None
    for epoch in (1, 2):
        complete_epoch(session.run, epoch, "b")
    assert resume(session, trainer) == Saved()
    assert [e for e in (1, 2) if session.run.marker(epoch_marker(e)).exists()] == []
