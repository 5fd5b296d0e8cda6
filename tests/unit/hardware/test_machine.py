"""CPU, memory and disk: what cannot be read is an error, and never 0."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest

from nlijob.hardware import machine
from nlijob.hardware.machine import CpuLoad, free_bytes, resident_bytes
from nlijob.hardware.reader import ReaderError


class Times(NamedTuple):
    """The kernel's counters, in seconds."""

    user: float
    idle: float
    iowait: float = 0.0
    guest: float = 0.0


class Cpu:
    """Counters and clock that move on by a second at each reading."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *times: Times) -> None:
        self._times = iter(times)
        self._moments = iter(range(len(times)))
        clock = SimpleNamespace(monotonic=lambda: float(next(self._moments)), sleep=lambda _: None)
        monkeypatch.setattr(machine, "time", clock)
        monkeypatch.setattr(psutil, "cpu_times", lambda: next(self._times))


def test_the_first_load_is_measured_over_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    Cpu(monkeypatch, Times(100, 900), Times(103, 901))
    assert CpuLoad()() == 0.75


def test_each_load_is_of_the_time_since_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    Cpu(monkeypatch, Times(0, 0), Times(1, 1), Times(1, 3), Times(5, 3))
    load = CpuLoad()
    assert [load(), load(), load()] == [0.5, 0.0, 1.0]


def test_waiting_for_a_disk_is_no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    Cpu(monkeypatch, Times(0, 0), Times(1, 1, iowait=2))
    assert CpuLoad()() == 0.25


def test_the_time_of_a_guest_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    Cpu(monkeypatch, Times(0, 0), Times(2, 2, guest=2))
    assert CpuLoad()() == 0.5


def test_counters_that_stand_still_give_no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    Cpu(monkeypatch, Times(5, 5), Times(5, 5))
    with pytest.raises(ReaderError):
        CpuLoad()()


def test_the_load_of_this_machine_is_a_share() -> None:
    load = CpuLoad()
    assert all(0 <= load() <= 1 for _ in range(3))


class Child:
    """A process with 5 bytes in memory, or one that cannot be read."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def memory_info(self) -> SimpleNamespace:
        if self._error:
            raise self._error
        return SimpleNamespace(rss=5)


def with_children(monkeypatch: pytest.MonkeyPatch, *children: Child) -> None:
    parent = SimpleNamespace(
        memory_info=lambda: SimpleNamespace(rss=100), children=lambda recursive: list(children)
    )
    monkeypatch.setattr(psutil, "Process", lambda: parent)


def test_a_child_that_has_just_ended_uses_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with_children(monkeypatch, Child(), Child(psutil.NoSuchProcess(1)), Child())
    assert resident_bytes() == 110


def test_memory_is_unknown_where_a_process_may_not_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_children(monkeypatch, Child(), Child(psutil.AccessDenied(1)))
    with pytest.raises(psutil.AccessDenied):
        resident_bytes()


def test_free_space_of_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        free_bytes(tmp_path / "gone")
