"""How a command ended, for the exit code, the terminal, the upload and the notice alike."""

from __future__ import annotations

import errno
from typing import NamedTuple

import click

from nlijob import stopping
from nlijob.disk import disk_fault
from nlijob.errors import ExitCode, JobError, NotAvailableError
from nlijob.memory import is_out_of_memory
from nlijob.missing_package import HINT, missing_package
from nlijob.stopping import Stopped

NO_MEMORY_HINT = (
    "end other programs that use the memory, or take a smaller model, fewer rows or a machine "
    "with more memory; the same command then continues from what is complete"
)


class End(NamedTuple):
    """Exit code, what is wrong, and how to fix it."""

    exit_code: ExitCode
    message: str = ""
    hint: str = ""


def end_of(error: BaseException | None) -> End:
    """The end of a command that raised `error`, or that succeeded if it is None."""
    if error is None:
        return End(ExitCode.DONE)
    if isinstance(error, Stopped | KeyboardInterrupt | click.Abort):
        return End(
            ExitCode.STOPPED,
            f"stopped ({error})" if str(error) else "stopped",
            "the same command resumes from what is complete",
        )
    end = _end_by_job_error(error) or _end_by_machine(error)
    if end is None and stopping.is_stopping():  # an error that the signal caused within a library
        return end_of(Stopped())
    return end or _bug()


def _end_by_job_error(error: BaseException) -> End | None:
    if not isinstance(error, JobError):
        return None
    if isinstance(error, NotAvailableError) and error.__cause__:
        # What a library calls a failed download may be a full disk or a lack of memory.
        if fault := disk_fault(error):
            return End(fault.exit_code, f"{error.message}: {fault.message}", fault.hint)
        if is_out_of_memory(error):
            return End(ExitCode.HARDWARE, f"out of memory: {error.message}", NO_MEMORY_HINT)
    return End(error.exit_code, error.message, error.hint)


def _end_by_machine(error: BaseException) -> End | None:
    """The end by an error of the machine, which may come at any place; None for other errors."""
    if fault := disk_fault(error):
        return End(fault.exit_code, fault.message, fault.hint)
    if is_out_of_memory(error):
        lines = str(error).strip().splitlines()
        what = f"out of memory: {lines[0]}" if lines else "out of memory"
        return End(ExitCode.HARDWARE, what, NO_MEMORY_HINT)
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return End(ExitCode.HARDWARE, "too many open files", "raise the limit (`ulimit -n`)")
    if what := missing_package(error):
        return End(ExitCode.CONFIGURATION, what, HINT)
    return None


def _bug() -> End:
    return End(
        ExitCode.INTERNAL, "this is a bug in nlijob", "please report it with the lines above"
    )
