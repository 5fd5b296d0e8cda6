"""How many faults are tried, their seeds, and the undisturbed run that all others are held to.

    KILLED_RUNS=100 DAMAGED_RUNS=2000 DISKS=50 SEED=1 make test-faults
    TRAININGS=2 ... for a job of several trainings

Every seed is a part of its test's name and follows from SEED, or else from pytest-randomly's, which
is printed first: the same numbers repeat the same faults.
"""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlijob.rundir import RunDir
from tests import jobs
from tests.faults import tiny

COUNTS = {
    "kill_seed": ("KILLED_RUNS", 1),
    "damage_seed": ("DAMAGED_RUNS", 8),
    "disk_seed": ("DISKS", 1),
}
"""Argument of a test -> environment variable and default of the number of its seeds."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test of random faults its seeds, all of which follow from one."""
    base = int(os.environ.get("SEED") or metafunc.config.getoption("randomly_seed", 1))
    for argument, (variable, default) in COUNTS.items():
        if argument in metafunc.fixturenames:
            count = int(os.environ.get(variable) or default)
            seeds = random.Random(f"{argument} {base}").sample(range(10**9), count)
            metafunc.parametrize(argument, seeds)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """`once(name, make)`: the folder that `make` fills, made by one test process for all."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        path = shared / name
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                unfinished = shared / f"{name}.unfinished"
                unfinished.mkdir(exist_ok=True)
                make(unfinished)
                unfinished.rename(path)
        return path

    return folder


@pytest.fixture(scope="session")
def finished(once: Callable[[str, Callable[[Path], None]], Path]) -> RunDir:
    """A finished run that nothing disturbed, to be left as it is."""

    def make(folder: Path) -> None:
        code, output = tiny.finish(tiny.start(folder))
        assert code == 0, output

    return RunDir(once("faults-finished", make) / tiny.RUN_ID)


@pytest.fixture(scope="session")
def expected(finished: RunDir) -> dict[str, Any]:
    """The figures of the undisturbed run."""
    return tiny.outcome(finished)


@pytest.fixture(scope="session")
def half_done(once: Callable[[str, Callable[[Path], None]], Path]) -> RunDir:
    """A run that was killed in its second epoch, to be left as it is."""

    def make(folder: Path) -> None:
        run = RunDir(folder / tiny.RUN_ID)
        process = tiny.start(folder)
        while not run.view(tiny.FIRST_TRAINING).marker("train-epoch-1").exists():
            assert process.poll() is None, process.communicate()[0]
        for one in tiny.gpu_side_of(run):
            one.kill()
        code, output = tiny.finish(process)
        assert code != 0, output

    return RunDir(once("faults-half-done", make) / tiny.RUN_ID)


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[RunDir], RunDir]:
    """Copies a run, so that a test can change it."""
    return lambda run: jobs.copy_run(run, tmp_path / "copy")
