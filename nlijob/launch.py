"""Starts the GPU side with `accelerate launch` and follows it to its end.

`accelerate launch` neither passes signals on nor keeps its child's exit code. So the GPU side
runs in a process group of its own, holds the other end of a pipe (its standard input), begins
when a byte comes through that and stops when it closes, and leaves an outcome record.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import psutil

from nlijob import records, stopping
from nlijob.errors import ExitCode, JobError, error_for
from nlijob.records import Progress, WorkerOutcome, WorkerTask
from nlijob.rundir import RunDir, write_record

POLL_S = 0.1
STOP_GRACE_S = stopping.GRACE_S
LOG_TAIL_LINES = 15


def launch_command(run: RunDir, device: str) -> list[str]:
    """argv of the GPU side: one process group under `accelerate launch`."""
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--num_processes", "1", "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--num_cpu_threads_per_process", str(len(os.sched_getaffinity(0)))]
    if device == "cpu":
        command.append("--cpu")
    return [*command, "-m", "nlijob.gpu", str(run.root)]


class GpuSide:
    """The GPU side's process group; use as a context manager that leaves nothing of it running.

    To start takes seconds of imports, so it may be started before it is known what to do.
    """

    def __init__(
        self, run: RunDir, device: str, on_log: Callable[[str], None] = lambda _: None
    ) -> None:
        """`on_log` is given each line of the processes' log while they are followed."""
        self._run = run
        self._device = device
        self._on_log = on_log
        self._process: subprocess.Popen[bytes] | None = None
        self._grace_s = 0.0
        self.launched_at_s = 0.0

    def __enter__(self) -> GpuSide:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            _end_group(self._process, self._grace_s)

    def start(self) -> None:
        """Start the processes, where that is not done; they wait for their task."""
        if self._process is not None:
            return
        run = self._run
        run.worker_log.parent.mkdir(parents=True, exist_ok=True)
        for stale in (run.worker_task, run.worker_outcome, run.progress):
            stale.unlink(missing_ok=True)
        self.launched_at_s = time.time()
        # else a stop just now would leave processes that nobody knows
        with run.worker_log.open("wb") as log, stopping.held_back():
            self._process = subprocess.Popen(
                launch_command(run, self._device),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,
                bufsize=0,
            )

    def give(self, task: WorkerTask) -> None:
        """Have the processes begin; all that the task needs is there."""
        assert self._process is not None
        assert self._process.stdin is not None
        write_record(self._run.worker_task, task)
        self._grace_s = STOP_GRACE_S  # until now there was nothing that it could lose
        with contextlib.suppress(BrokenPipeError):  # it died; what it left says why
            self._process.stdin.write(b"\n")

    def follow(self, on_progress: Callable[[Progress], None]) -> None:
        """Pass progress on as it comes, until the outcome is there; the processes may still end.

        Raises the JobError that the GPU side reported, or one with the end of its log where it
        died without a word.
        """
        assert self._process is not None
        _follow(self._process, self._run, on_progress, self._on_log)
        _raise_outcome(self._run, self._process.returncode)


def _follow(
    process: subprocess.Popen[bytes],
    run: RunDir,
    on_progress: Callable[[Progress], None],
    on_log: Callable[[str], None],
) -> None:
    with _Tail(run.progress) as progress, _Tail(run.worker_log) as log:
        running = True
        while running:
            running = process.poll() is None and not run.worker_outcome.exists()
            for line in log.lines():
                on_log(line)
            for line in progress.lines():
                on_progress(records.from_json(Progress, json.loads(line)))
            if running:
                time.sleep(POLL_S)


def _end_group(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """Close the lifeline, wait for every process of the group, kill what outstays its grace."""
    if process.stdin:
        process.stdin.close()
    deadline = time.monotonic() + grace_s
    while _group_is_alive(process):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        time.sleep(POLL_S / 2)


def _group_is_alive(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    with contextlib.suppress(ChildProcessError):  # as PID 1 we inherit, and must bury, orphans
        os.waitpid(-process.pid, os.WNOHANG)
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    # where PID 1 is another that buries no orphans, dead ones stay in the group for good
    return any(_is_live_member(one, process.pid) for one in psutil.process_iter())


def _is_live_member(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def _raise_outcome(run: RunDir, returncode: int | None) -> None:
    try:
        outcome = records.read(WorkerOutcome, run.worker_outcome)
    except (OSError, ValueError):
        raise JobError(
            f"the GPU side ended without a word (status {returncode}); the end of its log:\n"
            f"{_log_tail(run.worker_log)}",
            f"the whole log is {run.worker_log}; status -9 mostly means that memory ran out",
        ) from None
    if outcome.exit_code != ExitCode.DONE:
        raise error_for(outcome.exit_code, outcome.message, outcome.hint)


def _log_tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  | {line}" for line in lines[-LOG_TAIL_LINES:])


def _environment() -> dict[str, str]:
    """Environment of the GPU side, which reads local folders only."""
    return {
        **os.environ,
        "PYTHONSAFEPATH": "1",  # else files of the current folder would shadow installed modules
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
        "PYTHONUNBUFFERED": "1",
        # Waiting OpenMP threads would spin. Beside anything else on the same cores that slows
        # training forty times (demo, two cores: 2 examples a second, not 81); alone it is even.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }


class _Tail:
    """Reads the complete lines that were added to a text file since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: IO[str] | None = None
        self._rest = ""

    def __enter__(self) -> _Tail:
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle:
            self._handle.close()

    def lines(self) -> list[str]:
        if self._handle is None:
            if not self._path.exists():
                return []
            self._handle = self._path.open(encoding="utf-8", errors="replace")
        *complete, self._rest = (self._rest + self._handle.read()).split("\n")
        return complete
