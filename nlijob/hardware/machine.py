"""Figures of the machine from psutil: CPU load, memory of the job's processes, free disk space."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import psutil

from nlijob.hardware.reader import ReaderError

SHORTEST_S = 0.1
"""Shortest interval of a CPU load; the kernel counts in hundredths of a second."""


class _CpuTimes(NamedTuple):
    at_s: float
    busy_s: float
    total_s: float


class CpuLoad:
    """Load of all cores together since the call before; the first call measures an interval."""

    def __init__(self) -> None:
        self._past: deque[_CpuTimes] = deque()

    def __call__(self) -> float:
        """The load (0 to 1) since the call before, or since an earlier one if that was just now.

        Raises ReaderError if the kernel counted nothing.
        """
        if not self._past:
            self._past.append(_cpu_times())
            time.sleep(SHORTEST_S)
        now = _cpu_times()
        while len(self._past) > 1 and now.at_s - self._past[1].at_s >= SHORTEST_S:
            self._past.popleft()
        before = self._past[0]
        self._past.append(now)
        total_s = now.total_s - before.total_s
        if total_s <= 0:
            raise ReaderError("the kernel's counters stand still")
        return min(1.0, max(0.0, (now.busy_s - before.busy_s) / total_s))


def _cpu_times() -> _CpuTimes:
    times = psutil.cpu_times()
    # user and nice contain the time of guests
    total_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    idle_s = times.idle + getattr(times, "iowait", 0.0)
    return _CpuTimes(time.monotonic(), total_s - idle_s, total_s)


def resident_bytes() -> int:
    """Resident memory of this process and all its descendants; those that end count nothing."""
    process = psutil.Process()
    total: int = process.memory_info().rss
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += child.memory_info().rss
    return total


def free_bytes(folder: Path) -> int:
    """Free space of the disk that holds a folder."""
    free: int = psutil.disk_usage(str(folder)).free
    return free
