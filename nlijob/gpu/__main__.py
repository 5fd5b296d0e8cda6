"""The process of the GPU side, which `accelerate launch` starts as `-m nlijob.gpu RUN_DIR [WORK]`.

WORK is a key of `WORKERS`, "job" if it is not given; for other work, RUN_DIR is a folder of its
own rather than a run. The process imports the heavy libraries, waits for its task and can be
stopped at any time. Once it has a task, it always ends with an outcome record.

There may be several such processes, one for each GPU, which do the same work together. Each has a
rank, and the same standard input.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlijob import stopping
from nlijob.errors import JobError
from nlijob.gpu.context import EarlyContext, early_context
from nlijob.gpu.imports import imported
from nlijob.gpu.outcome import outcome_of
from nlijob.records.job import ProcessUse, WorkerOutcome, WorkerStart
from nlijob.rundir import RunDir, write_record

WORKERS = {
    "job": "nlijob.gpu.worker",
    "predict": "nlijob.gpu.predicting",
    "export": "nlijob.gpu.exporting",
}
"""Work -> the module whose function `work` does it."""


def main() -> None:
    """Do the work; does not return."""
    run = RunDir(Path(sys.argv[1]))
    stopping.raise_on_signals()
    rank, size = _place(os.environ)
    outcome = _outcome(run, rank, size)
    # A parent that has gone reads no outcome, and the next attempt would take it for its own.
    if stopping.is_open(sys.stdin.fileno()):
        with contextlib.suppress(OSError, JobError):  # on a full disk, the status says the same
            write_record(run.outcome_of(rank), outcome)
    # Everything is on disk: a regular shutdown of interpreter, threads and GPU memory only takes
    # time.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(outcome.exit_code)


def _place(environment: Mapping[str, str]) -> tuple[int, int]:
    """Rank of this process, from 0, and number of processes, by the launcher's variables."""
    return int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1"))


def _outcome(run: RunDir, rank: int, size: int) -> WorkerOutcome:
    try:
        run.reserve_for_gpu_side(is_shared=size > 1)
        task_is_written = stopping.stop_when_closed(sys.stdin.fileno())
        worker, start = _imported(WORKERS[sys.argv[2] if sys.argv[2:] else "job"])
        task_is_written.wait()
        if not stopping.is_open(sys.stdin.fileno()):  # the task on disk may be another attempt's
            raise stopping.Stopped("the parent ended")
        if rank == 0:
            write_record(run.worker_start, start)
        outcome: WorkerOutcome = worker.work(run)
        return outcome
    except (Exception, stopping.Stopped) as error:
        stopping.shutdown_begins()
        return outcome_of(error, run)


def _imported(name: str) -> tuple[Any, WorkerStart]:
    """The module of the work, and how long it took to import it; with it, all libraries are."""
    began_s, began_use = time.monotonic(), _use()
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"

    def importing() -> tuple[Any, EarlyContext | None]:
        context = None if on_cpu else early_context()
        return importlib.import_module(name), context

    module, context = imported(importing)
    context_s = context.duration_s if context else None
    return module, WorkerStart(began_s, time.monotonic(), context_s, began_use, _use())


def _use() -> ProcessUse:
    """What this process has taken of the machine so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return ProcessUse(usage.ru_utime, usage.ru_stime, usage.ru_minflt)


if __name__ == "__main__":
    main()
