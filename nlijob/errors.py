"""The errors that a user can meet, each with its exit code.

Raise a `JobError` for anything that the user can fix: it says what is wrong, where, and how to fix
it. Any other exception that escapes is a bug and ends with `ExitCode.INTERNAL`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")


class ExitCode(IntEnum):
    """Exit codes of the command line; schedulers rely on them."""

    DONE = 0
    CONFIGURATION = 2
    GATE_FAILED = 3
    NOT_AVAILABLE = 4
    HARDWARE = 5
    DIVERGED = 6
    INTERNAL = 70
    DISK = 74
    STOPPED = 75


class JobError(Exception):
    """An error with a message for the user, a hint on how to fix it, and an exit code."""

    exit_code = ExitCode.INTERNAL

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigurationError(JobError):
    """Options, recipe or environment do not make up a valid job (exit 2)."""

    exit_code = ExitCode.CONFIGURATION

    @classmethod
    def from_faults(cls, faults: Sequence[str], hint: str = "") -> ConfigurationError:
        """One error that lists all faults, so that a user can fix them in one go."""
        if len(faults) == 1:
            return cls(faults[0], hint)
        listed = "\n".join(f"  - {fault}" for fault in faults)
        return cls(f"{len(faults)} faults in the configuration:\n{listed}", hint)


def all_or_every_fault(first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
    """The values of both calls. Raises one ConfigurationError with the faults of both."""
    errors: list[ConfigurationError] = []
    values: list[Any] = []
    for call in (first, second):
        try:
            values.append(call())
        except ConfigurationError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ConfigurationError(
            "\n".join(error.message for error in errors), "; ".join(error.hint for error in errors)
        )
    return values[0], values[1]


class GateError(JobError):
    """The job is done, but its outcome is below the required minimum (exit 3)."""

    exit_code = ExitCode.GATE_FAILED


class NotAvailableError(JobError):
    """Model or data are not available, or the data are unusable (exit 4)."""

    exit_code = ExitCode.NOT_AVAILABLE


class HardwareError(JobError):
    """The machine is unsuitable for the job, or ran out of memory (exit 5)."""

    exit_code = ExitCode.HARDWARE


class DivergedError(JobError):
    """Training produced a loss or gradient that is not finite (exit 6)."""

    exit_code = ExitCode.DIVERGED


class DiskError(JobError):
    """A file cannot be written or read for a reason that lies in the disk (exit 74)."""

    exit_code = ExitCode.DISK


class StoppedError(JobError):
    """A signal stopped the job; the same command resumes it (exit 75)."""

    exit_code = ExitCode.STOPPED


def error_for(exit_code: int, message: str, hint: str) -> JobError:
    """The error with this exit code, to raise what another process reported."""
    kinds: dict[int, type[JobError]] = {kind.exit_code: kind for kind in JobError.__subclasses__()}
    return kinds.get(exit_code, JobError)(message, hint)


def first_line(error: BaseException) -> str:
    """The type of a library's error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
