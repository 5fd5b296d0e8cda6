"""The sampler writes what it can read, whatever else fails, and holds nothing up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from nlijob import records
from nlijob.errors import ConfigurationError
from nlijob.hardware import Sampler, machine, sampler
from nlijob.hardware.gpu_process import MIB
from nlijob.records.job import HardwareSample
from nlijob.rundir import append_to_log
from tests.unit.hardware.conftest import NVML, ROW, Install

LIMIT_S = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hardware.jsonl"


@pytest.fixture
def no_driver(pynvml: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    pynvml("def nvmlInit(): raise OSError('no library')")
    monkeypatch.setattr("shutil.which", lambda _: None)


def read(path: Path) -> list[HardwareSample]:
    return list(records.read_lines(HardwareSample, path))


def sampled(
    path: Path, enough: Callable[[list[HardwareSample]], object] = lambda s: len(s) >= 2
) -> list[HardwareSample]:
    """Samples taken in a stage "train", until there are enough and the sampler has ended."""
    with Sampler(path, attempt=2, interval_s=0.01, disk=path.parent, stage="train"):
        deadline = time.monotonic() + LIMIT_S
        while not (path.exists() and enough(read(path))):
            assert time.monotonic() < deadline, f"not enough samples: {read(path)[-3:]}"
            time.sleep(0.01)
    return read(path)


def fail(*_: Any, **__: Any) -> Any:
    raise psutil.AccessDenied(1)


# ---------------------------------------------------------------- without a GPU


@pytest.mark.usefixtures("no_driver")
def test_without_a_driver_samples_have_no_gpus_and_no_process_is_started(path: Path) -> None:
    samples = sampled(path)
    assert {sample.gpus for sample in samples} == {()}
    assert {sample.unread for sample in samples} == {()}


@pytest.mark.usefixtures("no_driver")
def test_samples_say_attempt_stage_and_moment(path: Path) -> None:
    started_s = time.monotonic()
    samples = sampled(path)
    assert {(sample.attempt, sample.stage) for sample in samples} == {(2, "train")}
    moments = [sample.monotonic_s for sample in samples if sample.monotonic_s is not None]
    assert len(moments) == len(samples)
    in_order = [started_s, *moments, time.monotonic()]
    assert in_order == sorted(in_order)


@pytest.mark.usefixtures("no_driver")
def test_samples_have_the_machines_figures_in_their_units(path: Path) -> None:
    for sample in sampled(path):
        assert sample.cpu_load is not None
        assert sample.ram_used_bytes is not None
        assert sample.disk_free_bytes is not None
        assert 0 <= sample.cpu_load <= 1
        assert MIB < sample.ram_used_bytes < psutil.virtual_memory().total
        assert sample.disk_free_bytes > 0


@pytest.mark.usefixtures("no_driver")
def test_there_is_a_sample_at_the_start_and_at_the_end_however_long_the_interval(
    path: Path,
) -> None:
    with Sampler(path, 1, threading.TIMEOUT_MAX, path.parent, "subset") as running:
        deadline = time.monotonic() + LIMIT_S
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.stage = "evaluate"
    assert [sample.stage for sample in read(path)] == ["subset", "evaluate"]


@pytest.mark.usefixtures("no_driver")
def test_the_first_cpu_load_is_measured(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([(0.0, 0.0), (30.0, 10.0), *[(30.0 + i, 10.0 + i) for i in range(1, 10_000)]])

    def cpu_times() -> machine._CpuTimes:
        busy_s, idle_s = next(readings)
        return machine._CpuTimes(time.monotonic(), busy_s, busy_s + idle_s)

    monkeypatch.setattr(machine, "_cpu_times", cpu_times)
    assert sampled(path)[0].cpu_load == 0.75


@pytest.mark.usefixtures("no_driver")
def test_sampling_ends_with_its_context(path: Path) -> None:
    sampled(path)
    assert "hardware sampler" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize(
    ("function", "field", "words"),
    [
        ("cpu_times", "cpu_load", "CPU load"),
        ("Process", "ram_used_bytes", "memory of the job's processes"),
        ("disk_usage", "disk_free_bytes", "free disk space"),
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        psutil.AccessDenied(1),
        psutil.NoSuchProcess(1),
        FileNotFoundError(2, "No such file", "/proc/stat"),
        RuntimeError("odd"),
    ],
)
def test_a_figure_that_psutil_does_not_give_is_none_and_costs_no_other(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    field: str,
    words: str,
    error: Exception,
) -> None:
    def raise_error(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(psutil, function, raise_error)
    samples = sampled(path)
    names = ("cpu_load", "ram_used_bytes", "disk_free_bytes")
    assert [n for n in names if getattr(samples[0], n) is None] == [field]
    (told,) = (text for sample in samples for text in sample.unread)
    assert told.startswith(f"{words}: {type(error).__name__}")


@pytest.mark.usefixtures("no_driver")
def test_a_disk_that_does_not_answer_holds_nothing_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    monkeypatch.setattr(sampler, "PATIENCE_S", 0.2)
    monkeypatch.setattr(sampler, "free_bytes", lambda _: answered.wait())
    samples = sampled(path, lambda own: len(own) >= 4)
    answered.set()
    assert {sample.disk_free_bytes for sample in samples} == {None}
    assert all(sample.ram_used_bytes for sample in samples)
    assert samples[-1].unread == ("free disk space: no answer before the job ended",)


@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize("error", [OSError(28, "No space left"), ConfigurationError("full")])
def test_a_sample_that_cannot_be_written_is_lost_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failed: list[HardwareSample] = []

    def append_until_full(to: Path, sample: HardwareSample) -> None:
        if len(failed) < 3:
            failed.append(sample)
            with to.open("a", encoding="utf-8") as handle:
                handle.write('{"attempt": 2, "ti')
            raise error
        append_to_log(to, sample)

    monkeypatch.setattr(sampler, "append_to_log", append_until_full)
    assert len(sampled(path)) >= 2
    assert len(failed) == 3


# ---------------------------------------------------------------- with one


def has_gpu(samples: list[HardwareSample]) -> bool:
    return any(sample.gpus for sample in samples)


def gpu_of(samples: list[HardwareSample]) -> Any:
    return next(sample.gpus[0] for sample in samples if sample.gpus)


@pytest.mark.usefixtures("driver")
def test_samples_have_a_gpus_figures_in_their_units(path: Path) -> None:
    def are_complete(samples: list[HardwareSample]) -> bool:
        return any(gpu.load and gpu.power_w for sample in samples for gpu in sample.gpus)

    samples = sampled(path, are_complete)
    gpu = next(g for sample in samples for g in sample.gpus if g.load and g.power_w)
    assert (gpu.uuid, gpu.load, gpu.memory_used_bytes) == ("GPU-1", 0.37, 100 * MIB)
    assert (gpu.temperature_c, gpu.power_w, gpu.energy_j) == (60.0, 300.0, 5.0)


def test_a_broken_nvidia_smi_is_told_once_and_nvml_fills_in(
    path: Path, nvidia_smi: Install, pynvml: Install
) -> None:
    nvidia_smi("echo 'Unknown Error'; exit 1")
    pynvml(NVML)
    samples = sampled(path, lambda own: has_gpu(own) and len(own) > 3 and _told(own))
    gpu = gpu_of(samples)
    assert (gpu.load, gpu.memory_used_bytes, gpu.energy_j) == (0.5, 200, 5.0)
    assert _told(samples) == [
        "GPU load and memory from nvidia-smi: it ended with status 1 and printed: Unknown Error"
    ]


@pytest.mark.parametrize("source", ["def", "", NVML + "    def nvmlInit(): raise NVMLError\n"])
def test_a_broken_nvml_is_told_once_and_nvidia_smis_figures_stay(
    path: Path, nvidia_smi: Install, pynvml: Install, source: str
) -> None:
    nvidia_smi(f"echo '{ROW}'")
    pynvml(source)
    samples = sampled(path, lambda own: has_gpu(own) and len(own) > 3 and _told(own))
    gpu = gpu_of(samples)
    assert (gpu.load, gpu.memory_used_bytes, gpu.temperature_c) == (0.37, 100 * MIB, 41.0)
    assert (gpu.power_w, gpu.energy_j) == (None, None)
    (told,) = _told(samples)
    assert told.startswith("GPU power and energy from NVML: ")


@pytest.mark.parametrize("hanging", ["nvidia-smi", "NVML"])
def test_one_hanging_source_costs_no_figure_of_the_other_and_leaves_no_process(
    path: Path,
    nvidia_smi: Install,
    pynvml: Install,
    monkeypatch: pytest.MonkeyPatch,
    hanging: str,
) -> None:
    monkeypatch.setattr(sampler, "PATIENCE_S", 0.5)
    nvidia_smi("sleep 1000" if hanging == "nvidia-smi" else f"echo '{ROW}'")
    waits = "    def nvmlInit():\n        import threading; threading.Event().wait()\n"
    pynvml(NVML if hanging == "nvidia-smi" else NVML + waits)
    samples = sampled(path, lambda own: has_gpu(own) and len(own) > 5)
    assert gpu_of(samples).load == (0.5 if hanging == "nvidia-smi" else 0.37)
    assert all(sample.ram_used_bytes for sample in samples)
    (told,) = _told(samples)
    assert hanging in told
    assert told.endswith("no answer before the job ended")
    names = [" ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)]
    assert [name for name in names if "gpu_process" in name or "sleep 1000" in name] == []


def _told(samples: list[HardwareSample]) -> list[str]:
    return [text for sample in samples for text in sample.unread]
