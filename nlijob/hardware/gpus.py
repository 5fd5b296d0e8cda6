"""The GPUs' figures, from two processes that read them: one with GPUtil, one with NVML."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from nlijob.hardware.reader import ReaderError
from nlijob.records.job import GpuSample

PROGRAM = Path(__file__).with_name("gpu_process.py")
END_S = 0.5
"""Longest wait for a killed process; one that hangs within the driver ends when the driver does."""

Gpu = dict[str, Any]


class GpuProcess:
    """A process that reads the figures of all GPUs; it is started when it is first asked."""

    def __init__(self, source: Literal["gputil", "nvml"]) -> None:
        self.known: Sequence[str] = ()
        """Uuids of GPUs that another source has listed."""
        self._source = source
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._reading = threading.RLock()
        self._is_closed = False

    def read(self) -> list[Gpu]:
        """The figures of all GPUs. Blocks until they are there, or until `end` or `close`.

        Raises ReaderError where there are none.
        """
        with self._reading:
            process = self._started()
            line = ""
            with contextlib.suppress(OSError, ValueError):  # it was ended, or cannot take questions
                _input(process).write(json.dumps(list(self.known)) + "\n")
                _input(process).flush()
                line = _output(process).readline()
            if not line.endswith("\n"):
                self.end()
                raise ReaderError("the process that reads it ended")
            answer = json.loads(line)
        if "fault" in answer:
            raise ReaderError(answer["fault"])
        return list(answer["gpus"])

    def end(self) -> None:
        """Kill the process and what it has started; the next question starts another one."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        if self._reading.acquire(timeout=END_S):  # a blocked reader would block closing as well
            try:
                _output(process).close()
                with contextlib.suppress(OSError):  # a question that it no longer took
                    _input(process).close()
            finally:
                self._reading.release()

    def close(self) -> None:
        """End the process and start no other."""
        with self._lock:
            self._is_closed = True
        self.end()

    def _started(self) -> subprocess.Popen[str]:
        with self._lock:
            if self._is_closed:
                raise ReaderError("the job ended")
            if self._process is None:
                self._process = subprocess.Popen(
                    # -P: files in the current folder must not shadow installed modules
                    [sys.executable, "-P", str(PROGRAM), self._source],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    start_new_session=True,
                )
            return self._process


def _input(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdin is not None
    return process.stdin


def _output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def gpu_samples(from_gputil: Iterable[Gpu], from_nvml: Iterable[Gpu]) -> tuple[GpuSample, ...]:
    """One sample for each GPU: GPUtil's load and memory first, everything else NVML's first."""
    nvml = {_plain(gpu["uuid"]): gpu for gpu in from_nvml}
    gputil = {_plain(gpu["uuid"]): gpu for gpu in from_gputil}
    return tuple(_sample(gputil.get(uuid, {}), nvml.get(uuid, {})) for uuid in {**gputil, **nvml})


def _sample(gputil: Gpu, nvml: Gpu) -> GpuSample:
    def figure(name: str, *sources: Gpu) -> Any:
        return next((one[name] for one in sources if one.get(name) is not None), None)

    return GpuSample(
        uuid=figure("uuid", gputil, nvml),
        load=figure("load", gputil, nvml),
        memory_used_bytes=figure("memory_used_bytes", gputil, nvml),
        temperature_c=figure("temperature_c", nvml, gputil),
        power_w=figure("power_w", nvml),
        energy_j=figure("energy_j", nvml),
    )


def _plain(uuid: str) -> str:
    return uuid.lower()
