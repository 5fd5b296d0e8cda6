"""The sampler's figures: those that are not reported are None."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from nlijob import hardware, records
from nlijob.hardware import MIB, Sampler, gpu_count
from nlijob.records.job import HardwareSample

GPU = SimpleNamespace(uuid="GPU-1", load=0.5, memoryUsed=100.0, temperature=60.0)


def fail(*_: object) -> Any:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_gpus_that_are_hidden_from_cuda_are_none(
    driver: None, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert gpu_count() == 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver with one GPU that has used 5 J and draws 300 W."""
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 1)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda _: 5_000)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", lambda _: 300_000)


def gputil_shows(monkeypatch: pytest.MonkeyPatch, *gpus: SimpleNamespace) -> None:
    shown = SimpleNamespace(getGPUs=lambda: list(gpus))
    monkeypatch.setattr(hardware, "_gputil", lambda: shown)


def sampled(path: Path, wait_s: float = 60.0) -> list[HardwareSample]:
    """Samples taken during a short stage "train"."""
    with Sampler(path, attempt=2, interval_s=0.01, disk=path.parent) as sampler:
        sampler.stage = "train"
        deadline = time.monotonic() + wait_s
        while not (path.exists() and path.read_bytes().count(b"\n") >= 2):
            assert time.monotonic() < deadline, "no samples were written"
            time.sleep(0.01)
    return list(records.read_lines(HardwareSample, path))


@pytest.fixture
def samples(no_driver: None, tmp_path: Path) -> list[HardwareSample]:
    return sampled(tmp_path / "hardware.jsonl")


# ---------------------------------------------------------------- without a GPU


@pytest.mark.usefixtures("no_driver")
def test_without_a_driver_there_are_no_gpus() -> None:
    assert gpu_count() == 0


@pytest.mark.usefixtures("driver")
def test_gpus_are_those_that_the_driver_shows() -> None:
    assert gpu_count() == 1


def test_without_a_gpu_samples_have_none(samples: list[HardwareSample]) -> None:
    assert {sample.gpus for sample in samples} == {()}


def test_samples_say_attempt_stage_and_time(samples: list[HardwareSample]) -> None:
    assert {(sample.attempt, sample.stage) for sample in samples} == {(2, "train")}
    times = [sample.time_s for sample in samples]
    assert times == sorted(times)
    assert psutil.Process().create_time() <= times[0] <= times[-1] <= time.time()


def test_samples_have_the_machines_figures_in_their_units(samples: list[HardwareSample]) -> None:
    for sample in samples:
        assert 0 <= sample.cpu_load <= 1
        assert MIB < sample.ram_used_bytes < psutil.virtual_memory().total
        assert sample.disk_free_bytes > 0


@pytest.mark.usefixtures("no_driver")
def test_sampling_ends_with_its_context(tmp_path: Path) -> None:
    path = tmp_path / "hardware.jsonl"
    sampled(path)
    assert "hardware sampler" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.usefixtures("no_driver")
def test_a_long_interval_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with Sampler(tmp_path / "hardware.jsonl", 1, interval_s=threading.TIMEOUT_MAX, disk=tmp_path):
        pass


# ---------------------------------------------------------------- with one


@pytest.mark.usefixtures("driver")
def test_samples_have_a_gpus_figures_in_their_units(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gputil_shows(monkeypatch, GPU)
    (gpu,) = sampled(tmp_path / "hardware.jsonl")[0].gpus
    assert (gpu.uuid, gpu.load, gpu.memory_used_bytes) == ("GPU-1", 0.5, 100 * MIB)
    assert (gpu.temperature_c, gpu.power_w, gpu.energy_j) == (60.0, 300.0, 5.0)


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("figure", "field"),
    [("load", "load"), ("memoryUsed", "memory_used_bytes"), ("temperature", "temperature_c")],
)
def test_a_figure_that_the_driver_does_not_give_is_none(
    monkeypatch: pytest.MonkeyPatch, figure: str, field: str
) -> None:
    gputil_shows(monkeypatch, SimpleNamespace(**{**vars(GPU), figure: math.nan}))
    (gpu,) = hardware._gpu_samples()
    assert getattr(gpu, field) is None
    assert [getattr(gpu, name) for name in ("uuid", "power_w")] == ["GPU-1", 300.0]


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("call", "figures"),
    [
        ("nvmlDeviceGetTotalEnergyConsumption", (None, 300.0)),
        ("nvmlDeviceGetPowerUsage", (5.0, None)),
        ("nvmlDeviceGetHandleByUUID", (None, None)),
    ],
)
def test_energy_and_power_are_none_where_not_supported(
    monkeypatch: pytest.MonkeyPatch, call: str, figures: tuple[float | None, float | None]
) -> None:
    gputil_shows(monkeypatch, GPU)
    monkeypatch.setattr(pynvml, call, fail)
    (gpu,) = hardware._gpu_samples()
    assert (gpu.energy_j, gpu.power_w) == figures


def test_gputil_can_be_imported() -> None:
    assert callable(hardware._gputil().getGPUs)
