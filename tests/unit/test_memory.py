"""A lack of memory is recognised by all of its names, and the kernel's count of kills is read."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from nlijob import memory
from nlijob.ending import end_of
from nlijob.errors import ExitCode, NotAvailableError
from nlijob.memory import KernelMemory, is_out_of_memory, memory_groups, memory_text


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch.so: failed to map segment: Cannot allocate memory"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
    ],
)
def test_a_lack_of_memory_ends_with_5_by_whatever_name(error: Exception) -> None:
    end = end_of(error)
    assert end.exit_code == ExitCode.HARDWARE
    assert end.message.startswith("out of memory")


def test_a_lack_of_memory_behind_another_error_is_found() -> None:
    covering = RuntimeError("capture failed")
    covering.__context__ = MemoryError()
    assert is_out_of_memory(covering)


def test_a_model_that_memory_does_not_hold_is_no_missing_model() -> None:
    failed = NotAvailableError("model x")
    failed.__cause__ = OSError(errno.ENOMEM, "Cannot allocate memory")
    assert end_of(failed).exit_code == ExitCode.HARDWARE


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("out of memory")])
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


VERSIONS = {
    "0::/pod/job\n": ("", "memory.events", "memory.max", "low 0\noom 1\noom_kill {}\n"),
    "4:cpu,memory:/pod/job\n1:name=systemd:/\n": (
        "memory",
        "memory.oom_control",
        "memory.limit_in_bytes",
        "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
    ),
}


@pytest.fixture(params=VERSIONS)
def pod(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, str]:
    """The folder of a control group above this process's own, and the text of its events."""
    base, events, limit, text = VERSIONS[request.param]
    group = tmp_path / base / "pod"
    (group / "job").mkdir(parents=True)
    (group / events).write_text(text.format(3), encoding="utf-8")
    (group / limit).write_text(str(2 * 1024**3), encoding="utf-8")
    own = tmp_path / "own"
    own.write_text(request.param, encoding="utf-8")
    monkeypatch.setattr(memory, "memory_groups", lambda: memory_groups(own, tmp_path))
    return group / events, text


def test_a_kill_in_a_group_above_is_noticed(pod: tuple[Path, str]) -> None:
    events, text = pod
    before = KernelMemory.now()
    assert not KernelMemory.now().killed_since(before)
    events.write_text(text.format(4), encoding="utf-8")
    assert KernelMemory.now().killed_since(before)


def test_limit_and_use_of_the_container_are_named(pod: tuple[Path, str]) -> None:
    assert memory_text() == "the container may use 2.0 GiB"
    for name in ("memory.peak", "memory.max_usage_in_bytes"):
        pod[0].with_name(name).write_text(str(3 * 1024**3 // 2), encoding="utf-8")
    assert memory_text() == "the container may use 2.0 GiB and used up to 1.5 GiB"


def test_a_machine_without_control_groups_has_no_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "memory_groups", lambda: memory_groups(tmp_path / "no", tmp_path))
    assert not KernelMemory.now().killed_since(KernelMemory({}))
    assert "the machine has" in memory_text()


def test_memory_that_cannot_be_read_hides_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise FileNotFoundError(2, "No such file or directory", "/proc/meminfo")

    monkeypatch.setattr(memory, "memory_groups", lambda: memory_groups(tmp_path / "no", tmp_path))
    monkeypatch.setattr("psutil.virtual_memory", fail)
    assert memory_text() == "how much the machine has cannot be read"
