"""One finished run of the small demo for all tests that need one, whichever process they run in."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path

import pytest

from nlijob.rundir import RunDir
from tests import jobs
from tests.in_process import nlijob_here

__all__ = ["nlijob_here"]


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[RunDir, subprocess.CompletedProcess[str]]:
    """A finished run, and what the command printed. Tests that change the run take a copy."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    printed = shared / "small-demo.json"
    with (shared / "small-demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other test processes wait for the first
        if not printed.exists():
            _, done = jobs.run_job(shared / "small-demo", *jobs.SMALL_DEMO)
            printed.write_text(json.dumps(vars(done)), encoding="utf-8")
    done = subprocess.CompletedProcess(**json.loads(printed.read_text(encoding="utf-8")))
    return RunDir(shared / "small-demo" / "job"), done


@pytest.fixture
def job(finished: tuple[RunDir, subprocess.CompletedProcess[str]]) -> RunDir:
    """The finished run, to be left as it is."""
    return finished[0]


@pytest.fixture
def copied(job: RunDir, tmp_path: Path) -> RunDir:
    """A copy of the finished run, to be changed."""
    return jobs.copy_run(job, tmp_path / "copy")
