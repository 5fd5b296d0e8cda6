"""Runs `accelerate launch` in this process.

    python -m nlijob.gpu.launcher ARGUMENTS    (those of `accelerate launch`)

`accelerate launch` imports torch, which takes seconds, and then starts a process that does so
again. A single process is not started: this one becomes it, with the environment that
`accelerate launch` has made for it. So this process ends as its program does.

Several processes are started by torchrun, within this process. Where one of them fails, it ends the
others, and this process writes down which one was the first. As in a shell, it ends with status
128 + N if signal N ended that one. The working folder is `worker/` in the run.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import runpy
import signal
import socket
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from nlijob import records, stopping
from nlijob.errors import ExitCode
from nlijob.gpu.context import early_context
from nlijob.gpu.imports import imported
from nlijob.records.job import WorkerFailure, WorkerOutcome
from nlijob.rundir import RunDir, write_record
from nlijob.stopping import STOP_SIGNALS

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

ATTEMPTS = 3
"""How often a free port is looked for: another program may take it before it is used."""


def main() -> None:
    """Run `accelerate launch`; raises SystemExit where several processes have failed."""
    processes = _number("--num_processes", sys.argv)
    if processes == 1:
        _launch_here()
        return
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            # torchrun has handlers of its own, which end all that it started.
            signal.signal(number, _exit)
    try:
        _launch_several()
    except Exception as error:
        sys.exit(_end_of_several(error, processes))


def _launch_here() -> None:
    """Run the program as `accelerate launch` would start it, but in this process."""
    # OpenMP reads it when torch is imported; `accelerate launch` sets it to the same
    os.environ["OMP_NUM_THREADS"] = str(_number("--num_cpu_threads_per_process", sys.argv))
    on_gpu = "--cpu" not in sys.argv
    launch = accelerate_launch(on_gpu)
    if on_gpu:
        early_context().wait()
    launch.simple_launcher = _become  # what it calls for a single process
    launch.main()


def _become(arguments: Namespace) -> None:
    """Run the program that the arguments of `accelerate launch` name, as the main program."""
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    _, environment = prepare_simple_launcher_cmd_env(arguments)
    os.environ.update(environment)
    sys.argv = [arguments.training_script, *arguments.training_script_args]
    if arguments.module:
        runpy.run_module(arguments.training_script, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(arguments.training_script, run_name="__main__")


def _launch_several() -> None:
    launch = accelerate_launch()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            launch.main()
        except RuntimeError as error:
            if "EADDRINUSE" not in str(error) or attempt == ATTEMPTS:
                raise
        else:
            return


def accelerate_launch(on_gpu: bool = False) -> Any:
    """The module of the command `accelerate launch`.

    `on_gpu`: whether this process needs a GPU, whose context is then created meanwhile. `accelerate
    launch` asks torch what a GPU can do, and so needs it, too.
    """

    def importing() -> Any:
        if on_gpu:
            early_context()
        return importlib.import_module("accelerate.commands.launch")

    return imported(importing)


def _end_of_several(error: Exception, processes: int) -> int:
    """The status to end with where torchrun raised an error; raises it again if it is unknown."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if isinstance(error, SignalException):
        return _as_in_a_shell(-error.sigval)
    if not isinstance(error, ChildFailedError):
        raise error
    run = RunDir(Path.cwd().parent)
    hosts = _number("--num_machines", sys.argv)
    failure = first_failure(error.failures, run, processes, processes // hosts)
    # One that was found hanging has been told already. A parent that has gone reads nothing, and
    # the next attempt would take this for its own.
    if not run.worker_failure.exists() and stopping.is_open(sys.stdin.fileno()):
        with contextlib.suppress(OSError):  # on a full disk, the status says the same
            write_record(run.worker_failure, failure)
    return _as_in_a_shell(failure.status or 0)


def first_failure(
    failures: Mapping[int, ProcessFailure], run: RunDir, processes: int, processes_here: int
) -> WorkerFailure:
    """The failure, of those on this host by rank, that led to the others.

    torchrun looks at its processes ten times a second, and then ends those that are left, so what
    ended one may have ended others by the time that it looks.
    """
    outcomes = {rank: _outcome(run, rank) for rank in failures}
    base = min(rank - one.local_rank for rank, one in failures.items())
    if all(outcome and outcome.lost_another for outcome in outcomes.values()):
        for rank in range(base, base + processes_here):  # one may have ended with status 0
            if rank not in failures and not run.outcome_of(rank).exists():
                return _failure(rank, processes, rank - base, 0, 0, None)

    def order(rank: int) -> tuple[bool, int, bool, int]:
        one, outcome = failures[rank], outcomes[rank]
        was_ended = one.exitcode in (-signal.SIGTERM, ExitCode.STOPPED)
        follows = was_ended or bool(outcome and outcome.lost_another)
        return follows, one.timestamp, one.exitcode == ExitCode.INTERNAL, rank

    first = min(failures, key=order)
    one = failures[first]
    return _failure(first, processes, one.local_rank, one.pid, one.exitcode, outcomes[first])


def _failure(
    rank: int, processes: int, local_rank: int, pid: int, status: int, said: WorkerOutcome | None
) -> WorkerFailure:
    host = socket.gethostname()
    return WorkerFailure(rank, processes, local_rank, host, pid, status, outcome=said)


def _outcome(run: RunDir, rank: int) -> WorkerOutcome | None:
    try:
        return records.read(WorkerOutcome, run.outcome_of(rank))
    except (OSError, ValueError):
        return None


def _number(option: str, arguments: list[str]) -> int:
    """The value of an option of `accelerate launch` that is a number."""
    return int(arguments[arguments.index(option) + 1])


def _as_in_a_shell(status: int) -> int:
    return status if status >= 0 else 128 - status


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(_as_in_a_shell(-number))


if __name__ == "__main__":
    main()
