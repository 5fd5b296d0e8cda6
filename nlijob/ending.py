"""How a command ended: the one reading of it, for the exit code and for everyone who is told."""

from __future__ import annotations

from typing import NamedTuple

import click

from nlijob.errors import ExitCode, JobError
from nlijob.stopping import Stopped


class End(NamedTuple):
    """Exit code, what is wrong, and how to mend it."""

    exit_code: ExitCode
    message: str = ""
    hint: str = ""


def end_of(error: BaseException | None) -> End:
    """The end that an error (or none) makes of a command."""
    if error is None:
        return End(ExitCode.DONE)
    if isinstance(error, JobError):
        return End(error.exit_code, error.message, error.hint)
    if isinstance(error, Stopped | KeyboardInterrupt | click.Abort):
        return End(
            ExitCode.STOPPED,
            f"stopped ({error})" if str(error) else "stopped",
            "the same command goes on from what is complete",
        )
    return End(
        ExitCode.INTERNAL,
        "this is a fault of nlijob itself",
        "please report it with the lines above",
    )
