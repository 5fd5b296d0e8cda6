"""The errors a user can meet, each with its exit code.

Raise a `JobError` for anything the user can mend: it carries what is wrong, where, and how to mend
it. Anything else that escapes is a bug and ends with `ExitCode.INTERNAL`.
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
    STOPPED = 75


class JobError(Exception):
    """A fault with a message for the user, a hint on how to mend it, and an exit code."""

    exit_code = ExitCode.INTERNAL

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigurationError(JobError):
    """Options, recipe or environment say something that cannot be run (exit 2)."""

    exit_code = ExitCode.CONFIGURATION

    @classmethod
    def from_faults(cls, faults: Sequence[str], hint: str = "") -> ConfigurationError:
        """One error for all faults found, so that a user mends them in one go."""
        if len(faults) == 1:
            return cls(faults[0], hint)
        listed = "\n".join(f"  - {fault}" for fault in faults)
        return cls(f"{len(faults)} faults in the configuration:\n{listed}", hint)


def all_or_every_fault(first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
    """What both calls give, or one ConfigurationError with the faults of both."""
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
    """The job is done, and its outcome is below what was asked for (exit 3)."""

    exit_code = ExitCode.GATE_FAILED


class NotAvailableError(JobError):
    """Model or data cannot be had, or data cannot be used as they are (exit 4)."""

    exit_code = ExitCode.NOT_AVAILABLE


class HardwareError(JobError):
    """The machine does not suit the job, or its memory ran out (exit 5)."""

    exit_code = ExitCode.HARDWARE


class DivergedError(JobError):
    """Training gave a loss or gradient that is no number (exit 6)."""

    exit_code = ExitCode.DIVERGED


class StoppedError(JobError):
    """A signal ended the job; the same command goes on from what is complete (exit 75)."""

    exit_code = ExitCode.STOPPED


def error_for(exit_code: int, message: str, hint: str) -> JobError:
    """The error of an exit code, for faults that another process reported."""
    kinds: tuple[type[JobError], ...] = (
        ConfigurationError,
        GateError,
        NotAvailableError,
        HardwareError,
        DivergedError,
        StoppedError,
    )
    kind = next((kind for kind in kinds if kind.exit_code == exit_code), JobError)
    return kind(message, hint)


def first_line(error: BaseException) -> str:
    """An error of a library in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
