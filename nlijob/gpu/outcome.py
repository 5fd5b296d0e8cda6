"""What the GPU side tells the parent about an error. Imports none of the heavy libraries."""

from __future__ import annotations

import contextlib
import traceback

from nlijob.ending import end_of
from nlijob.errors import ExitCode, JobError
from nlijob.records.job import WorkerOutcome
from nlijob.rundir import RunDir


def outcome_of(error: BaseException, run: RunDir) -> WorkerOutcome:
    """The outcome that describes an error. The traceback of an unforeseen one goes to the log."""
    end = end_of(error)
    if not isinstance(error, JobError) and end.exit_code != ExitCode.STOPPED:
        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            traceback.print_exception(error)
    if end.exit_code == ExitCode.INTERNAL and not isinstance(error, JobError):
        return WorkerOutcome(
            ExitCode.INTERNAL,
            f"the GPU side failed: {type(error).__name__}: {error}",
            f"the whole log is {run.worker_log}",
        )
    return WorkerOutcome(end.exit_code, end.message, end.hint)
