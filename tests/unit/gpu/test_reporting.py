"""The GPU side's times come from the clock that nobody sets."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest

from nlijob import records
from nlijob.attempt import Moment
from nlijob.gpu.reporting import Reporter, optimizer_steps
from nlijob.gpu.start_parts import report_start
from nlijob.records.job import Timing, WorkerTask
from nlijob.rundir import RunDir


@pytest.fixture(autouse=True)
def _clock_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    walls = itertools.cycle([2e9, 1e9, 3e9])
    monkeypatch.setattr(time, "time", lambda: next(walls))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def timings(run: RunDir) -> list[Timing]:
    return list(records.read_lines(Timing, run.timings))


def test_a_part_is_timed_by_the_monotonic_clock(run: RunDir) -> None:
    before_s = time.monotonic()
    with Reporter(run, 1).timed("train", optimizer_steps(1), examples=8):
        pass
    (timing,) = timings(run)
    assert timing.started_monotonic_s is not None
    assert before_s <= timing.started_monotonic_s <= time.monotonic()
    assert 0 <= timing.duration_s <= time.monotonic() - before_s


def task(**moments: Any) -> WorkerTask:
    return WorkerTask(1, 5.0, 6.0, "model", "stamp", {}, **moments)


def test_the_wait_for_the_gpu_side_is_timed_by_the_clock_that_both_sides_share(
    run: RunDir,
) -> None:
    launched_s = time.monotonic()
    given = Moment.now()
    moments = task(launched_monotonic_s=launched_s, given_monotonic_s=given.monotonic_s)
    report_start(run, moments, Reporter(run, 1))
    limit_s = time.monotonic() - launched_s
    whole, launch = timings(run)
    assert (whole.kind, launch.kind) == ("stage", "other")
    assert 0 <= whole.duration_s <= launch.duration_s <= limit_s
    assert (whole.started_at_s, launch.started_at_s) == (6.0, 5.0)


def test_a_wait_whose_start_is_not_known_is_not_recorded(run: RunDir) -> None:
    report_start(run, task(), Reporter(run, 1))
    assert not run.timings.exists()
