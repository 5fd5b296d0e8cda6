"""Time and hardware of whole jobs: a clock that is set, broken readers, renderings."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from nlijob import records
from nlijob.records.job import HardwareSample
from nlijob.records.outcome import Results
from nlijob.rundir import RunDir
from nlijob.stages import PHASES
from tests import jobs
from tests.in_process import Shown

pytestmark = pytest.mark.xdist_group("time and hardware")  # so that shared jobs run once
TINY = (
    *("--recipe", "demo", "--train-size", "32", "--validation-size", "16", "--test-size", "16"),
    *("--epochs", "1", "--set", "eval.generate_tokens=0", "--set", "eval.word_importance=false"),
    *("--set", "eval.few_shot=0", "--set", "report.sample_interval_s=0.2"),
    *("--set", "report.price_per_hour=3.6"),
)

JUMPING_CLOCK = """
import time

wall, monotonic = time.time, time.monotonic
time.time = lambda: wall() + (-3600, 0, 7200)[int(4 * monotonic()) % 3]
"""
"""A wall clock that is set forward and back four times a second, in every process of the job."""

NVML = """
import time

class NVMLError(Exception): pass
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 1
def nvmlSystemGetDriverVersion(): return "580.65.06"
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetUUID(handle): return "GPU-1"
def nvmlDeviceGetPowerUsage(handle): return 100_000
def nvmlDeviceGetTotalEnergyConsumption(handle): return int(100_000 * time.monotonic())
"""


# ---------------------------------------------------------------- a hostile machine


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the clock, with a module pynvml, and with an nvidia-smi that hangs."""
    folder = tmp_path_factory.mktemp("stand-ins")
    (folder / "sitecustomize.py").write_text(JUMPING_CLOCK, encoding="utf-8")
    (folder / "pynvml.py").write_text(NVML, encoding="utf-8")
    (folder / "nvidia-smi").write_text(
        f"#!/bin/sh\necho $$ >> {folder}/started\nsleep 1000 & wait\n", encoding="utf-8"
    )
    (folder / "nvidia-smi").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def hostile(stand_ins: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, float]:
    """A finished job on a machine with these stand-ins, and the seconds that it took at most."""
    runs_dir = tmp_path_factory.mktemp("runs")
    modules = os.pathsep.join((str(stand_ins), os.environ.get("PYTHONPATH", "")))
    path = os.pathsep.join((str(stand_ins), os.environ["PATH"]))
    started = time.monotonic()
    done = jobs.run(
        *("run", "--runs-dir", runs_dir, "--run-id", "job", *TINY, "--device", "cpu"),
        timeout_s=jobs.LIMIT_S,
        env=jobs.environment(PYTHONPATH=modules, PATH=path),
    )
    assert done.returncode == 0, done.stderr
    return RunDir(runs_dir / "job"), time.monotonic() - started


def durations(results: Results) -> Sequence[float | None]:
    parts = [part.duration_s for stage in results.stages for part in stage.timed_parts]
    return [*parts, *(stage.duration_s for stage in results.stages), results.total_s]


@pytest.mark.slow
def test_a_clock_that_is_set_changes_no_duration(hostile: tuple[RunDir, float]) -> None:
    job, limit_s = hostile
    results = jobs.results(job)
    assert all(seconds is not None and 0 <= seconds < limit_s for seconds in durations(results))
    stages = sum(stage.duration_s or 0.0 for stage in results.stages)
    assert stages <= results.total_s
    assert results.cost is not None
    assert results.cost.amount == pytest.approx(results.total_s * 3.6 / 3600)


@pytest.mark.slow
def test_a_clock_that_is_set_changes_no_order_of_samples(hostile: tuple[RunDir, float]) -> None:
    job, _ = hostile
    samples = list(records.read_lines(HardwareSample, job.hardware))
    moments = [sample.monotonic_s for sample in samples if sample.monotonic_s is not None]
    assert moments == sorted(moments)
    stages = list(dict.fromkeys(sample.stage for sample in samples))  # a short one has no sample
    assert stages[0] == "subset"
    assert stages == [phase.name for phase in PHASES if phase.name in stages]
    walls = [sample.time_s for sample in samples]
    assert walls != sorted(walls), "the stand-in for the clock was not in use"


@pytest.mark.slow
def test_a_hanging_nvidia_smi_is_told_and_costs_no_other_figure(
    hostile: tuple[RunDir, float],
) -> None:
    job, _ = hostile
    samples = list(records.read_lines(HardwareSample, job.hardware))
    gpus = [gpu for sample in samples for gpu in sample.gpus]
    assert {gpu.load for gpu in gpus} == {None}
    assert all(gpu.power_w == 100.0 and gpu.energy_j for gpu in gpus)
    assert any(sample.ram_used_bytes and sample.cpu_load is not None for sample in samples)
    (told,) = jobs.results(job).resources.unread
    assert told.startswith("GPU load and memory from nvidia-smi: no answer")
    assert told in job.report.read_text("utf-8")


@pytest.mark.slow
def test_a_hanging_nvidia_smi_is_started_rarely_and_leaves_no_process(
    hostile: tuple[RunDir, float], stand_ins: Path
) -> None:
    _, took_s = hostile
    pids = [int(line) for line in (stand_ins / "started").read_text("utf-8").split()]
    assert 1 <= len(pids) <= 1 + took_s / 10
    assert [pid for pid in pids if is_running(pid)] == []


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# ---------------------------------------------------------------- renderings


def test_writing_the_report_again_changes_no_figure(
    copied: RunDir, nlijob_here: Callable[..., Shown]
) -> None:
    before = copied.results.read_bytes()
    for _ in range(2):
        assert nlijob_here("report", copied.root).code == 0
    assert copied.results.read_bytes() == before


def test_another_report_option_changes_no_time_and_is_no_attempt(
    copied: RunDir, nlijob_here: Callable[..., Shown]
) -> None:
    logs = [path.read_bytes() for path in (copied.timings, copied.hardware)]
    before = jobs.results(copied)
    done = nlijob_here(
        *("run", "--runs-dir", copied.root.parent, "--run-id", copied.root.name),
        *(*jobs.SMALL_DEMO, "--set", "report.title='Nightly'"),
        *("--set", "report.price_per_hour=2.0"),
    )
    assert done.code == 0, done.err
    after = jobs.results(copied)
    assert [path.read_bytes() for path in (copied.timings, copied.hardware)] == logs
    assert after.cost is not None
    assert after.cost.amount == pytest.approx(2.0 * before.total_s / 3600)
    assert replace(after, run=before.run, cost=None) == replace(before, cost=None)
