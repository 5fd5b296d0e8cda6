"""What the GPU side tells the parent about an error. Imports none of the heavy libraries."""

from __future__ import annotations

import contextlib
import re
import traceback

from nlijob.ending import end_of
from nlijob.errors import ExitCode, JobError, first_line
from nlijob.records.job import WorkerOutcome
from nlijob.rundir import RunDir

BETWEEN_PROCESSES = re.compile("gloo|NCCL|c10d")
"""In the message of an error: a library by which the processes of a group exchange values."""


def outcome_of(error: BaseException, run: RunDir) -> WorkerOutcome:
    """The outcome that describes an error. The traceback of an unforeseen one goes to the log."""
    end = end_of(error)
    log = f"the whole log is {run.worker_log}"
    if end.exit_code == ExitCode.INTERNAL and is_of_exchange(error):
        # The log says what ended the other process; this traceback would only follow it.
        what = f"the processes of the GPU side cannot reach each other: {first_line(error)}"
        with contextlib.suppress(OSError):
            print(what, flush=True)
        return WorkerOutcome(ExitCode.INTERNAL, what, log, lost_another=True)
    if not isinstance(error, JobError) and end.exit_code != ExitCode.STOPPED:
        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            traceback.print_exception(error)
    if end.exit_code == ExitCode.INTERNAL and not isinstance(error, JobError):
        what = f"the GPU side failed: {type(error).__name__}: {error}"
        return WorkerOutcome(ExitCode.INTERNAL, what, log)
    return WorkerOutcome(end.exit_code, end.message, end.hint)


def is_of_exchange(error: BaseException) -> bool:
    """Whether an exchange with other processes failed, most often because one of them has ended.

    torch then raises a RuntimeError, or a class of its own below that.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    is_named = isinstance(error, RuntimeError) and BETWEEN_PROCESSES.search(str(error)) is not None
    return "DistError" in names or is_named
