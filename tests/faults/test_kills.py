"""A job that is killed at random, again and again, ends as one that nobody disturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from nlijob.rundir import RunDir
from tests import jobs
from tests.faults import tiny

pytestmark = pytest.mark.faults

KILLS = 5
"""How often one run is killed at most; it may end earlier."""
LATEST_CHANGE = 120
"""Last change to the run's files at which a process is killed."""
SIDES = ("parent", "gpu", "both", "one")
"""one: any process of the GPU side, or its launcher."""


def test_a_run_that_is_killed_at_random_ends_with_the_same_figures(
    tmp_path: Path,
    finished: RunDir,
    expected: dict[str, Any],
    kill_seed: int,
    record_property: Callable[[str, object], None],
) -> None:
    chance = random.Random(kill_seed)
    run = RunDir(tmp_path / tiny.RUN_ID)
    kills = 0
    for _ in range(KILLS):
        code, output = killed(run, chance, undisturbed_s(finished))
        if code == 0:  # it was done before it could be killed, and the next attempts do nothing
            break
        kills += 1
        print(f"kill {kills} of {KILLS} attempts: status {code}")
        assert "Traceback" not in output, output
        if code >= 0:
            tiny.assert_says_what_to_do(code, output)
    record_property("faults: kills of running jobs", kills)
    code, output = tiny.finish(tiny.start(tmp_path))
    assert code == 0, output
    tiny.assert_same_outcome(run, expected)
    assert tiny.gpu_side_of(run) == []


def undisturbed_s(finished: RunDir) -> float:
    """How long a job takes on this machine, beside as many others."""
    return sum(
        stage["duration_s"] or 0 for stage in json.loads(finished.results.read_text())["stages"]
    )


def killed(run: RunDir, chance: random.Random, span_s: float) -> tuple[int, str]:
    """Exit code and output of an attempt that is killed at a random time or change to its files.

    The time is below `span_s`; a job that has ended by then is not killed.
    """
    side = chance.choice(SIDES)
    if side in ("parent", "gpu") and chance.random() < 0.6:
        at = round(LATEST_CHANGE ** chance.random())
        return tiny.finish(tiny.start(run.root.parent, tiny.with_hook(run, side, at)))
    process = tiny.start(run.root.parent)
    try:
        process.wait(span_s * chance.random())
    except subprocess.TimeoutExpired:
        kill(process, run, side, chance)
    return tiny.finish(process)


def kill(process: subprocess.Popen[str], run: RunDir, side: str, chance: random.Random) -> None:
    gpu_side = tiny.gpu_side_of(run)
    if side == "one":
        gpu_side = [chance.choice(both)] if (both := [*gpu_side, *tiny.launchers_of(run)]) else []
    if side in ("parent", "both") or not gpu_side:
        process.kill()
    if side != "parent":
        for one in gpu_side:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue


def test_a_hang_up_stops_a_job_as_a_request_to_end_does(tmp_path: Path) -> None:
    run = RunDir(tmp_path / tiny.RUN_ID)
    with jobs.hearing_hang_ups():
        process = tiny.start(tmp_path)
    while not run.marker("subset").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGHUP)
    code, output = tiny.finish(process)
    assert code == 75, output
    assert tiny.gpu_side_of(run) == []
