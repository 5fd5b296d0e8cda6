"""The GPU side has the work of every stage, and knows which epochs it can resume from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nlijob import records
from nlijob.config import load_config
from nlijob.gpu.reporting import Reporter
from nlijob.gpu.resuming import Saved, resume
from nlijob.gpu.stages import WORK
from nlijob.gpu.worker import CONTEXT, LAUNCHER, LIBRARIES, report_start
from nlijob.records.job import Timing, WorkerStart, WorkerTask
from nlijob.rundir import RunDir, epoch_marker, write_record, write_text
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


@pytest.mark.parametrize("context_s", [0.5, None])
def test_the_start_is_reported_by_its_parts(tmp_path: Path, context_s: float | None) -> None:
    run = RunDir(tmp_path)
    write_record(run.worker_start, WorkerStart(102.0, 105.0, context_s))
    task = WorkerTask(1, 0.0, 0.0, "", "", {}, launched_monotonic_s=100.0)
    report_start(run, task, Reporter(run, attempt=1))
    parts = {one.part: one for one in records.read_log(Timing, run.timings).records}
    assert (parts[LAUNCHER].started_monotonic_s, parts[LAUNCHER].duration_s) == (100.0, 2.0)
    assert (parts[LIBRARIES].started_monotonic_s, parts[LIBRARIES].duration_s) == (102.0, 3.0)
    assert (parts[CONTEXT].duration_s if CONTEXT in parts else None) == context_s


@pytest.mark.parametrize("torn", [None, "", '{"began_monotonic_s": 1'])
def test_a_start_whose_parts_are_not_known_is_reported_as_a_whole(
    tmp_path: Path, torn: str | None
) -> None:
    run = RunDir(tmp_path)
    if torn is not None:
        write_text(run.worker_start, torn)
    task = WorkerTask(1, 0.0, 0.0, "", "", {}, given_monotonic_s=100.0)
    report_start(run, task, Reporter(run, attempt=1))
    assert [one.part for one in records.read_log(Timing, run.timings).records] == [""]
