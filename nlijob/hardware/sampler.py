"""The hardware sampler: a thread of the parent that writes hardware.jsonl while the job runs."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from concurrent.futures import wait
from functools import partial
from pathlib import Path
from typing import Any

from nlijob.errors import JobError
from nlijob.hardware.driver import may_have_gpus, start
from nlijob.hardware.gpus import GpuProcess, gpu_samples
from nlijob.hardware.machine import CpuLoad, free_bytes, resident_bytes
from nlijob.hardware.reader import Reader
from nlijob.records.job import GpuSample, HardwareSample
from nlijob.rundir import append_to_log

PATIENCE_S = 1.0
"""Wait for the figures of one sample, if they are late; half of the interval where that is more."""
LONGEST_PATIENCE_S = 3.0
LAST_PATIENCE_S = 0.5
"""Longest wait for the figures of the last sample: a job that was stopped has to end soon."""
END_S = 4.0
"""Longest wait for the thread, which may be waiting for the disk."""


class Sampler:
    """Samples the machine when it is entered, every `interval_s` seconds, and when it is left.

    Use it as a context manager. A source that fails or hangs leaves its figures None, and the
    sample that follows says so. A sample that cannot be written is lost; no other is.
    """

    def __init__(
        self, path: Path, attempt: int, interval_s: float, disk: Path, stage: str = ""
    ) -> None:
        """`path` gets the samples, `disk` is a folder on the disk that is watched."""
        self.stage = stage
        self._path = path
        self._attempt = attempt
        self._interval_s = interval_s
        self._patience_s = max(PATIENCE_S, min(interval_s / 2, LONGEST_PATIENCE_S))
        self._cpu = Reader("CPU load", CpuLoad())
        self._ram = Reader("memory of the job's processes", resident_bytes)
        self._disk = Reader("free disk space", partial(free_bytes, disk))
        self._gpus = _Gpus()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hardware sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(END_S)
        self._gpus.close()

    def _run(self) -> None:
        self._write(self._sample())
        while not self._closed.wait(self._interval_s):
            self._write(self._sample())
        self._write(self._sample(is_last=True))

    def _sample(self, *, is_last: bool = False) -> HardwareSample:
        time_s, now_s, stage = time.time(), time.monotonic(), self.stage
        deadline_s = now_s + (LAST_PATIENCE_S if is_last else self._patience_s)
        for reader in (self._cpu, self._ram, self._disk):
            reader.ask()
        gpus = self._gpus.sample(deadline_s)
        cpu_load, ram_bytes, disk_bytes = (
            self._cpu.take(deadline_s),
            self._ram.take(deadline_s),
            self._disk.take(deadline_s),
        )
        readers: tuple[Reader[Any], ...] = (self._cpu, self._ram, self._disk, *self._gpus.readers)
        if is_last:
            for reader in readers:
                reader.close()
        return HardwareSample(
            attempt=self._attempt,
            time_s=time_s,
            stage=stage,
            cpu_load=cpu_load,
            ram_used_bytes=ram_bytes,
            disk_free_bytes=disk_bytes,
            gpus=gpus,
            monotonic_s=now_s,
            unread=tuple(text for reader in readers for text in reader.told()),
        )

    def _write(self, sample: HardwareSample) -> None:
        # A full disk ends the stage that needs it, with an error that says so.
        with contextlib.suppress(OSError, JobError):
            size = self._path.stat().st_size if self._path.exists() else 0
            try:
                append_to_log(self._path, sample)
            except (OSError, JobError):
                os.truncate(self._path, size)  # no part of a line may stay
                raise


class _Gpus:
    """The two sources of GPU figures; neither is started on a machine without a driver."""

    def __init__(self) -> None:
        self._are_there = start(may_have_gpus)
        self._gputil, self._nvml = GpuProcess("gputil"), GpuProcess("nvml")
        self.readers = (
            Reader("GPU load and memory from nvidia-smi", self._gputil.read, self._gputil.end),
            Reader("GPU power and energy from NVML", self._nvml.read, self._nvml.end),
        )

    def sample(self, deadline_s: float) -> tuple[GpuSample, ...]:
        """The figures of every GPU that have arrived by `deadline_s` on the monotonic clock."""
        wait([self._are_there], max(0.0, deadline_s - time.monotonic()))
        if not (self._are_there.done() and self._are_there.result()):
            return ()
        for reader in self.readers:
            reader.ask()
        by_gputil, by_nvml = (reader.take(deadline_s) or [] for reader in self.readers)
        self._nvml.known = tuple(gpu["uuid"] for gpu in by_gputil) or self._nvml.known
        return gpu_samples(by_gputil, by_nvml)

    def close(self) -> None:
        """End the processes."""
        for process in (self._gputil, self._nvml):
            process.close()
