"""Why the GPU side ended, where it left no outcome record: from its status, log and the kernel."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

from nlijob.disk import RESUME, disk_fault, free_text
from nlijob.ending import NO_MEMORY_HINT
from nlijob.errors import DiskError, ExitCode, HardwareError, JobError, StoppedError, error_for
from nlijob.memory import memory_text, speaks_of_memory
from nlijob.printable import printable

LOG_TAIL_LINES = 15
LOG_TAIL_BYTES = 64 * 1024
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CRASHES = {
    signal.SIGBUS: "a file that is mapped into memory could not be read or grown: /dev/shm or the "
    "disk may be full (in a container: --shm-size)",
    signal.SIGILL: "a library was built for a CPU with other instructions: install one built for "
    "this CPU",
    signal.SIGFPE: "a library divided by zero",
    signal.SIGSEGV: "a library or driver crashed: reinstall torch for this driver, or try another "
    "machine",
    signal.SIGABRT: "a library gave up; its last words are in the log",
    signal.SIGSYS: "a system call is not permitted here: look at the container's seccomp profile",
    signal.SIGXCPU: "the limit on processor time was reached (`ulimit -t`)",
}
"""Signals by which a process ends itself, or the system ends it for a fault -> what may help."""


def error_of_end(status: int, log: Path, kernel_killed: bool) -> JobError:
    """The error to raise for a GPU side that ended with a status and without an outcome.

    `status` is -N or, from the launcher, 128 + N where signal N ended the process. `kernel_killed`:
    whether the kernel has counted a process that it killed for want of memory.
    """
    tail = _log_tail(log)
    shown = f"; the end of its log:\n{_indented(tail)}" if tail.strip() else ""
    whole_log = f"the whole log is {log}"
    number = _signal(status)
    if kernel_killed and number in (None, signal.SIGKILL):
        return HardwareError(
            f"out of memory: the kernel ended the GPU side; {memory_text()}", NO_MEMORY_HINT
        )
    if number == signal.SIGKILL:
        return HardwareError(
            "the GPU side was killed (SIGKILL), most likely because memory ran out; "
            f"{memory_text()}",
            NO_MEMORY_HINT,
        )
    if number in STOPS:
        return StoppedError(
            f"stopped: the GPU side was sent {_name(number)}",
            "the same command resumes from what is complete",
        )
    if number == signal.SIGXFSZ:
        return DiskError(
            f"{log.parent}: a file would exceed the largest size that is allowed (`ulimit -f`)",
            f"raise the limit; {RESUME}",
        )
    if speaks_of_memory(tail):
        return HardwareError(f"out of memory; {memory_text()}{shown}", NO_MEMORY_HINT)
    if found := disk_fault(RuntimeError(tail), log.parent):
        return found
    if status == ExitCode.DISK:  # not even the outcome could be written
        return DiskError(
            f"{log.parent}: the GPU side could not write to the disk; {free_text(log.parent)}",
            f"free space there, or choose another folder; {RESUME}",
        )
    if status in set(ExitCode) - {ExitCode.DONE, ExitCode.CONFIGURATION}:
        return error_for(status, f"the GPU side ended with status {status}{shown}", whole_log)
    what = f"signal {_name(number)}" if number else f"status {status}"
    advice = CRASHES.get(number, "") if number else ""
    return JobError(
        f"the GPU side ended without an outcome ({what}){shown}",
        f"{advice}; {whole_log}" if advice else whole_log,
    )


def _signal(status: int) -> signal.Signals | None:
    """The signal that ended a process, or None if none did."""
    with contextlib.suppress(ValueError):
        if status < 0:
            return signal.Signals(-status)
        if status > 128:
            return signal.Signals(status - 128)
    return None


def _name(number: signal.Signals | None) -> str:
    return number.name if number else ""


def _log_tail(path: Path) -> str:
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            text = log.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])


def _indented(lines: str) -> str:
    return "\n".join(f"  | {printable(line)}" for line in lines.splitlines())
