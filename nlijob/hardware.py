"""The hardware sampler: a thread of the parent that writes hardware.jsonl while the job runs.

GPU load, memory and temperature come from GPUtil (nvidia-smi), power and energy from NVML, and
everything else from psutil. A figure that the driver does not report is None.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from nlijob.records.job import GpuSample, HardwareSample
from nlijob.rundir import append_record

MIB = 1024 * 1024


def gpu_count() -> int:
    """Number of GPUs with an NVIDIA driver; 0 if CUDA_VISIBLE_DEVICES hides them all."""
    import pynvml

    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] in ("", "-1"):
        return 0
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    return int(pynvml.nvmlDeviceGetCount())


class Sampler:
    """Samples the machine every `interval_s` seconds until closed; use as a context manager."""

    def __init__(self, path: Path, attempt: int, interval_s: float, disk: Path) -> None:
        self.stage = ""
        self._path = path
        self._attempt = attempt
        self._interval_s = interval_s
        self._disk = disk
        self._process = psutil.Process()
        self._has_gpu = gpu_count() > 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hardware sampler", daemon=True)

    def __enter__(self) -> Sampler:
        psutil.cpu_percent()  # each call measures the time since the call before
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(self._interval_s):
            append_record(self._path, self._sample())

    def _sample(self) -> HardwareSample:
        return HardwareSample(
            attempt=self._attempt,
            time_s=time.time(),
            stage=self.stage,
            cpu_load=psutil.cpu_percent() / 100,
            ram_used_bytes=_resident_bytes(self._process),
            disk_free_bytes=psutil.disk_usage(str(self._disk)).free,
            gpus=tuple(_gpu_samples()) if self._has_gpu else (),
        )


def _resident_bytes(process: psutil.Process) -> int:
    """Resident memory of a process and all its descendants."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total


def _gpu_samples() -> list[GpuSample]:
    return [_gpu_sample(gpu) for gpu in _gputil().getGPUs()]


def _gpu_sample(gpu: Any) -> GpuSample:
    energy_j, power_w = _energy_and_power(gpu.uuid)
    memory_mib = _finite(gpu.memoryUsed)
    return GpuSample(
        uuid=gpu.uuid,
        load=_finite(gpu.load),
        memory_used_bytes=None if memory_mib is None else int(memory_mib * MIB),
        temperature_c=_finite(gpu.temperature),
        power_w=power_w,
        energy_j=energy_j,
    )


def _energy_and_power(uuid: str) -> tuple[float | None, float | None]:
    """Energy in joules since the driver was loaded, and power in watts; None if unsupported."""
    import pynvml

    energy_j = power_w = None
    with contextlib.suppress(pynvml.NVMLError):
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        with contextlib.suppress(pynvml.NVMLError):
            energy_j = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
        with contextlib.suppress(pynvml.NVMLError):
            power_w = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
    return energy_j, power_w


def _gputil() -> Any:
    """The module GPUtil, whose version 1.4.0 needs setuptools for distutils since Python 3.12."""
    import setuptools  # noqa: F401
    import GPUtil  # isort: skip

    return GPUtil


def _finite(value: float) -> float | None:
    """The value, or None for the NaN with which GPUtil marks a figure as not available."""
    return value if math.isfinite(value) else None
