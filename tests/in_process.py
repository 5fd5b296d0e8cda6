"""A whole job in the test's own process: all but what is about processes, without their start.

Most of a small job's time is the start of its processes, which import torch and the libraries
above it. Tests of processes, signals and pipes take a real job instead (`tests.jobs`).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from nlijob import cli, pipeline, records
from nlijob.attempt import Moment
from nlijob.errors import ExitCode, error_for
from nlijob.files import remove
from nlijob.launch import GpuSide
from nlijob.records.job import Progress, WorkerTask
from nlijob.rundir import write_record
from nlijob.stopping import STOP_SIGNALS


class Shown(NamedTuple):
    """How a command line ended."""

    code: int
    out: str
    err: str


class GpuSideHere(GpuSide):
    """The GPU side without processes: it does its task in the thread that waits for it."""

    def start(self) -> None:
        run = self._run
        for stale in (run.worker_task, run.worker_outcome, run.progress, run.worker_log):
            remove(stale)
        self.launched = Moment.now()

    def give(self, task: WorkerTask) -> None:
        write_record(self._run.worker_task, task)

    def follow(self, on_progress: Callable[[Progress], None]) -> None:
        from nlijob.gpu import worker

        outcome = worker.work(self._run)
        told = self._run.progress
        for progress in records.read_lines(Progress, told) if told.exists() else ():
            on_progress(progress)
        if outcome.exit_code != ExitCode.DONE:
            raise error_for(outcome.exit_code, outcome.message, outcome.hint)


@pytest.fixture
def nlijob_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Shown]:
    """Runs a command line, job included, in this process."""

    def call(*arguments: str | Path) -> Shown:
        monkeypatch.setattr(sys, "argv", ["entrypoint.py", *map(str, arguments)])
        handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        try:
            code = cli.main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Shown(code, *capsys.readouterr())

    monkeypatch.setattr(pipeline, "GpuSide", GpuSideHere)
    return call
