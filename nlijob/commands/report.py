"""`report RUN_DIR`."""

from __future__ import annotations

from pathlib import Path

import click

from nlijob.commands.options import FOLDER
from nlijob.errors import ExitCode, NotAvailableError


@click.command("report")
@click.argument("run_dir", type=FOLDER)
def command(run_dir: Path) -> int:
    """Render a run's report again from its records.

    Needs neither torch nor a GPU.
    """
    from nlijob.report.render import render
    from nlijob.rundir import RunDir

    run = RunDir(run_dir)
    if not run.evaluate_result.is_file():
        raise NotAvailableError(
            f"{run_dir} holds no finished evaluation to report on",
            "name a folder such as runs/demo; `run` with the same options finishes it",
        )
    with run.lock():
        click.echo(f"Report: {render(run)}")
    return ExitCode.DONE
