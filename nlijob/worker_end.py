"""Why the GPU side ended, where it left no outcome record: from its status, log and the kernel."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path

from nlijob.disk import RESUME, disk_fault, free_text
from nlijob.ending import NO_MEMORY_HINT
from nlijob.errors import DiskError, ExitCode, HardwareError, JobError, StoppedError, error_for
from nlijob.hosts import Hosts
from nlijob.memory import memory_text, speaks_of_memory
from nlijob.printable import printable
from nlijob.records.job import WorkerFailure

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


NOT_REACHED = re.compile("Dist(Store|Network|Backend)Error|cannot reach each other|connectFullMesh")
"""In the log: torch's launcher or the processes could not connect to those of another host."""


def error_of_failure(
    failure: WorkerFailure, log: Path, kernel_killed: bool, gpu: str | None = None
) -> JobError:
    """The error to raise where one of several processes failed, with the place of that process.

    `gpu`: the name of its GPU, or "" if that is not known; None on a CPU. `kernel_killed`: as in
    `error_of_end`.
    """
    place = place_of(failure, gpu)
    if failure.silent_s is not None:
        return HardwareError(
            f"{place} has shown no sign of life for {failure.silent_s:.0f} s",
            "it was held up, or its GPU or driver hangs (`nvidia-smi`, `dmesg`); the same command "
            "then continues from what is complete",
        )
    if said := failure.outcome:
        is_stop = said.exit_code == ExitCode.STOPPED  # of all, whoever heard of it first
        message = said.message if is_stop else f"{place}: {said.message}"
        return error_for(said.exit_code, message, said.hint)
    return error_of_end(failure.status or 0, log, kernel_killed, place)


def error_between(hosts: Hosts, error: JobError, log: Path) -> JobError:
    """The error to raise where processes of several hosts failed for no reason that is known here.

    If they could not reach each other, that is the network's fault; else it is `error`.
    """
    found = [line for line in _log_tail(log).splitlines() if NOT_REACHED.search(line)]
    if not found:
        return error
    return HardwareError(
        f"the processes of this host cannot reach those of the others (host 0 is {hosts.address}, "
        f"port {hosts.port}): {printable(found[-1].strip())}",
        "let the hosts reach each other at all ports; GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME "
        f"choose a network card; the whole log is {log}",
    )


def place_of(failure: WorkerFailure, gpu: str | None = None) -> str:
    """Which of the processes failed, and where, in words; `gpu` as in `error_of_failure`."""
    at = f"on {failure.host}"
    if gpu is not None:
        at = ", ".join(filter(None, [f"GPU {failure.local_rank} of {failure.host}", gpu]))
    return f"process {failure.rank} of {failure.processes} ({at})"


def error_of_end(
    status: int, log: Path, kernel_killed: bool, who: str = "the GPU side"
) -> JobError:
    """The error to raise for a GPU side that ended with a status and without an outcome.

    `status` is -N or, from the launcher, 128 + N where signal N ended the process. `kernel_killed`:
    whether the kernel has counted a process that it killed for want of memory. `who` ended.
    """
    tail = _log_tail(log)
    shown = f"; the end of its log:\n{_indented(tail)}" if tail.strip() else ""
    whole_log = f"the whole log is {log}"
    number = _signal(status)
    if kernel_killed and number in (None, signal.SIGKILL):
        return HardwareError(
            f"out of memory: the kernel ended {who}; {memory_text()}", NO_MEMORY_HINT
        )
    if number == signal.SIGKILL:
        return HardwareError(
            f"{who} was killed (SIGKILL), most likely because memory ran out; {memory_text()}",
            NO_MEMORY_HINT,
        )
    if number in STOPS:
        return StoppedError(
            f"stopped: {who} was sent {_name(number)}",
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
            f"{log.parent}: {who} could not write to the disk; {free_text(log.parent)}",
            f"free space there, or choose another folder; {RESUME}",
        )
    if status in set(ExitCode) - {ExitCode.DONE, ExitCode.CONFIGURATION}:
        return error_for(status, f"{who} ended with status {status}{shown}", whole_log)
    what = f"signal {_name(number)}" if number else f"status {status}"
    advice = CRASHES.get(number, "") if number else ""
    return JobError(
        f"{who} ended without an outcome ({what}){shown}",
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
