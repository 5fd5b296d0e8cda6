"""What the status and the log of the GPU side say of its end, where it left no outcome."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from nlijob.errors import ExitCode, JobError
from nlijob.hosts import Hosts
from nlijob.records.job import WorkerFailure, WorkerOutcome
from nlijob.worker_end import error_between, error_of_end, error_of_failure


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


@pytest.mark.parametrize("status", [-9, 137])
def test_a_kill_that_the_kernel_counted_names_memory_and_limit(log: Path, status: int) -> None:
    error = error_of_end(status, log, kernel_killed=True)
    assert error.exit_code == ExitCode.HARDWARE
    assert "the kernel ended the GPU side; the " in error.message
    assert "GiB" in error.message


@pytest.mark.parametrize("status", [-9, 137])
def test_a_kill_that_nobody_counted_is_most_likely_memory(log: Path, status: int) -> None:
    error = error_of_end(status, log, kernel_killed=False)
    assert error.exit_code == ExitCode.HARDWARE
    assert "most likely because memory ran out" in error.message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_from_outside_is_a_stop(log: Path, number: signal.Signals) -> None:
    error = error_of_end(128 + number, log, kernel_killed=False)
    assert error.exit_code == ExitCode.STOPPED
    assert number.name in error.message


@pytest.mark.parametrize(
    ("number", "advice"),
    [(signal.SIGBUS, "/dev/shm"), (signal.SIGILL, "CPU"), (signal.SIGSEGV, "driver")],
)
def test_a_crash_comes_with_advice(log: Path, number: signal.Signals, advice: str) -> None:
    error = error_of_end(128 + number, log, kernel_killed=False)
    assert error.exit_code == ExitCode.INTERNAL
    assert f"signal {number.name}" in error.message
    assert advice in error.hint


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("terminate called after throwing an instance of 'std::bad_alloc'", ExitCode.HARDWARE),
        ("memory allocation of 4096 bytes failed", ExitCode.HARDWARE),
        ("OpenBLAS: pthread_create failed: No space left on device", ExitCode.DISK),
        ("AssertionError", ExitCode.INTERNAL),
    ],
)
def test_the_last_words_of_an_abort_tell_its_reason(log: Path, words: str, code: ExitCode) -> None:
    log.write_text(f"loading\n{words}\n", encoding="utf-8")
    assert error_of_end(128 + signal.SIGABRT, log, kernel_killed=False).exit_code == code


def test_a_limit_on_the_size_of_files_is_the_disks_fault(log: Path) -> None:
    error = error_of_end(128 + signal.SIGXFSZ, log, kernel_killed=False)
    assert error.exit_code == ExitCode.DISK


@pytest.mark.parametrize("code", [ExitCode.DISK, ExitCode.HARDWARE, ExitCode.STOPPED])
def test_a_side_that_could_not_write_its_outcome_tells_by_its_status(
    log: Path, code: ExitCode
) -> None:
    assert error_of_end(code, log, kernel_killed=False).exit_code == code


def test_control_characters_of_a_log_do_not_reach_a_terminal(log: Path) -> None:
    log.write_text("\x1b]0;title\x07\x1b[2J gone", encoding="utf-8")
    message = error_of_end(1, log, kernel_killed=False).message
    assert "\x1b" not in message
    assert r"\x1b[2J gone" in message


# ---------------------------------------------------------------- one process of several

FAILURE = WorkerFailure(1, 4, 1, "host", 99, -9)


def test_a_process_that_was_killed_is_named_with_its_host_and_gpu(log: Path) -> None:
    error = error_of_failure(FAILURE, log, kernel_killed=False, gpu="NVIDIA H200")
    assert error.exit_code == ExitCode.HARDWARE
    assert error.message.startswith("process 1 of 4 (GPU 1 of host, NVIDIA H200) was killed")


def test_a_gpu_without_a_name_is_named_by_its_number(log: Path) -> None:
    message = error_of_failure(FAILURE, log, kernel_killed=True, gpu="").message
    assert "the kernel ended process 1 of 4 (GPU 1 of host);" in message


def test_on_a_cpu_no_gpu_is_named(log: Path) -> None:
    message = error_of_failure(FAILURE, log, kernel_killed=False).message
    assert message.startswith("process 1 of 4 (on host) was killed")


def test_what_a_process_said_of_its_end_is_told_with_its_place(log: Path) -> None:
    said = WorkerOutcome(5, "out of memory: no room", "take less")
    error = error_of_failure(replace(FAILURE, status=5, outcome=said), log, kernel_killed=False)
    assert error.exit_code == ExitCode.HARDWARE
    assert error.message == "process 1 of 4 (on host): out of memory: no room"
    assert error.hint == "take less"


def test_a_stop_is_one_of_all_processes(log: Path) -> None:
    said = WorkerOutcome(75, "stopped (SIGTERM)", "resume")
    error = error_of_failure(replace(FAILURE, status=75, outcome=said), log, kernel_killed=False)
    assert (error.exit_code, error.message) == (ExitCode.STOPPED, "stopped (SIGTERM)")


def test_a_process_that_hangs_is_named_with_the_time(log: Path) -> None:
    hanging = replace(FAILURE, status=None, silent_s=20.4)
    error = error_of_failure(hanging, log, kernel_killed=False)
    assert error.exit_code == ExitCode.HARDWARE
    assert error.message == "process 1 of 4 (on host) has shown no sign of life for 20 s"


@pytest.mark.parametrize(
    "line",
    [
        "torch.distributed.DistStoreError: Timed out after 301 seconds. 1/2 clients joined.",
        "the processes of the GPU side cannot reach each other: RuntimeError: gloo",
    ],
)
def test_hosts_whose_processes_cannot_connect_are_told_to_look_at_the_network(
    log: Path, line: str
) -> None:
    log.write_text(f"Traceback\n  {line}\n", encoding="utf-8")
    error = error_between(Hosts(2, 0, "node0", 1234), JobError("status 1"), log)
    assert error.exit_code == ExitCode.HARDWARE
    assert "node0, port 1234" in error.message
    assert line in error.message
    assert "at all ports" in error.hint


def test_any_other_error_of_a_host_stays_what_it_is(log: Path) -> None:
    log.write_text("ImportError: libc.so\n", encoding="utf-8")
    error = JobError("status 1")
    assert error_between(Hosts(2, 0, "node0", 1234), error, log) is error
