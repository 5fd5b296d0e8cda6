"""One finished run of the small demo for all tests that need one, whichever process they run in."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from nlijob.rundir import RunDir
from tests import jobs


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, str]:
    """A finished run, and what the terminal showed. Tests that change it take a copy."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    shown = shared / "small-demo.stderr"
    with (shared / "small-demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other test processes wait for the first
        if not shown.exists():
            _, done = jobs.run_job(shared / "small-demo", *jobs.SMALL_DEMO)
            shown.write_text(done.stderr, encoding="utf-8")
    return RunDir(shared / "small-demo" / "job"), shown.read_text(encoding="utf-8")


@pytest.fixture
def job(finished: tuple[RunDir, str]) -> RunDir:
    """The finished run, to be left as it is."""
    return finished[0]


@pytest.fixture
def copied(job: RunDir, tmp_path: Path) -> RunDir:
    """A copy of the finished run, to be changed."""
    return jobs.copy_run(job, tmp_path / "copy")
