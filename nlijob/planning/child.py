"""Runs a module of the GPU side in a process of its own, for a limited time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from nlijob import records, stopping
from nlijob.bytecode import bytecode_environment
from nlijob.errors import ExitCode, HardwareError, error_for
from nlijob.memory import KernelMemory
from nlijob.records.job import WorkerOutcome
from nlijob.records.planning import ModelLook
from nlijob.rundir import RunDir
from nlijob.surroundings import gpu_side_environment
from nlijob.worker_end import error_of_end

LOOK_MODULE, TRIAL_MODULE = "nlijob.gpu.look", "nlijob.gpu.trial"
LOOK = "look.json"
TRIAL = "trial.jsonl"
LOOK_LIMIT_S = 600.0
"""Longest time that a look at model and rows may take. It takes seconds for most, and a minute for
a model of many layers on a busy machine."""
END_S = 2.0
"""Longest wait for a killed process; one that hangs within the driver ends when the driver does."""


@contextlib.contextmanager
def child(module: str, *arguments: str, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs `python -m module`, and is killed with all that it started at the end.

    Its standard input is a pipe, which is closed when this process ends, however that is.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    environment = gpu_side_environment(os.environ)
    place = bytecode_environment(environment)
    with output.open("wb") as log, stopping.delayed_stop():
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            # without torch's compiler, imports take a quarter less
            env={**environment, **place, "TORCHDYNAMO_DISABLE": "1"},
            cwd=output.parent,
            start_new_session=True,
            bufsize=0,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        if process.stdin:
            process.stdin.close()


def look(run: RunDir, limit_s: float = LOOK_LIMIT_S) -> ModelLook:
    """The look at the model and rows that `run` holds as for the job: configuration, task, rows.

    Raises the JobError with which the job itself would end there.
    """
    before = KernelMemory.now()
    with child(LOOK_MODULE, str(run.root.absolute()), output=run.worker_log) as process:
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise HardwareError(
                f"the look at the model was not done within {limit_s:.0f} s",
                "the machine is busy, or a disk or driver hangs; `doctor` looks at these",
            ) from None
    try:
        outcome = records.read(WorkerOutcome, run.worker_outcome)
        if outcome.exit_code == ExitCode.DONE:
            return records.read(ModelLook, run.root / LOOK)
    except (OSError, ValueError):
        killed = KernelMemory.now().killed_since(before)
        raise error_of_end(status, run.worker_log, killed) from None
    raise error_for(outcome.exit_code, outcome.message, outcome.hint)
