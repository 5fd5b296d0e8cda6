"""`report RUN_DIR`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nlijob.commands.options import FOLDER
from nlijob.errors import ExitCode, NotAvailableError
from nlijob.printable import printable

if TYPE_CHECKING:
    from nlijob.rundir import RunDir

SHOWN = 10
"""Most reasons that an error lists."""


@click.command("report")
@click.argument("run_dir", type=FOLDER)
def command(run_dir: Path) -> int:
    """Render a run's report again from its records.

    Needs neither torch nor a GPU.
    """
    from nlijob.analysis.runs import holds_a_run
    from nlijob.report.render import render
    from nlijob.rundir import RunDir

    run = RunDir(run_dir)
    if not holds_a_run(run_dir):
        raise NotAvailableError(
            f"{run_dir} holds no run to report on", "name a folder such as runs/demo"
        )
    with run.lock():
        _check(run)
        run.clear_misplaced()
        try:
            click.echo(printable(f"Report: {render(run)}"))
        except ValueError as error:  # also where records contradict each other
            raise _unsound(run, [str(error)]) from error
    return ExitCode.DONE


def _check(run: RunDir) -> None:
    """Raise NotAvailableError unless the run's stages are complete, whole and belong together."""
    from nlijob.belonging import changed_files, doubts

    if found := doubts(run) or changed_files(run):
        raise _unsound(run, [doubt.text for doubt in found])


def _unsound(run: RunDir, reasons: Sequence[str]) -> NotAvailableError:
    listed = "".join(f"\n  - {reason}" for reason in reasons[:SHOWN])
    more = f"\n  - and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    return NotAvailableError(
        f"{run.root} cannot be reported on:{listed}{more}",
        "`run` with the options of that run goes on from what is complete, and does again what "
        "is missing, damaged or of other settings",
    )
