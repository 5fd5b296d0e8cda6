"""`report RUN_DIR`."""

from __future__ import annotations

from pathlib import Path

import click

from nlijob.commands.options import FOLDER
from nlijob.errors import ExitCode, NotAvailableError
from nlijob.printable import printable


@click.command("report")
@click.argument("run_dir", type=FOLDER)
def command(run_dir: Path) -> int:
    """Render a run's report again from its records.

    Needs neither torch nor a GPU.
    """
    from nlijob.belonging import check_whole, unsound
    from nlijob.report.render import render
    from nlijob.run_folders import holds_a_run
    from nlijob.rundir import RunDir

    run = RunDir(run_dir)
    if not holds_a_run(run_dir):
        raise NotAvailableError(
            f"{run_dir} holds no run to report on", "name a folder such as runs/demo"
        )
    with run.lock():
        check_whole(run, "reported on")
        run.clear_misplaced()
        try:
            click.echo(printable(f"Report: {render(run)}"))
        except ValueError as error:  # also where records contradict each other
            raise unsound(run, [str(error)], "reported on") from error
    return ExitCode.DONE
