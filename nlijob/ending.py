"""How a command ended, for the exit code, the terminal, the upload and the notice alike."""

from __future__ import annotations

from typing import NamedTuple

import click

from nlijob.errors import ExitCode, JobError
from nlijob.stopping import Stopped


class End(NamedTuple):
    """Exit code, what is wrong, and how to fix it."""

    exit_code: ExitCode
    message: str = ""
    hint: str = ""


def end_of(error: BaseException | None) -> End:
    """The end of a command that raised `error`, or that succeeded if it is None."""
    if error is None:
        return End(ExitCode.DONE)
    if isinstance(error, JobError):
        return End(error.exit_code, error.message, error.hint)
    if isinstance(error, Stopped | KeyboardInterrupt | click.Abort):
        return End(
            ExitCode.STOPPED,
            f"stopped ({error})" if str(error) else "stopped",
            "the same command resumes from what is complete",
        )
    return End(
        ExitCode.INTERNAL,
        "this is a bug in nlijob",
        "please report it with the lines above",
    )
