"""`runs [FOLDER]`."""

from __future__ import annotations

from pathlib import Path

import click

from nlijob.commands.options import FOLDER
from nlijob.errors import ExitCode
from nlijob.streams import check_output


@click.command("runs")
@click.argument("folder", type=FOLDER, default=Path("runs"))
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def command(folder: Path, as_json: bool) -> int:
    """List the runs below a folder, the newest first.

    Prints the state of each, the verdict on it, and the test accuracy before and after tuning.
    Without a folder, lists those in runs.
    """
    import os
    import sys

    from nlijob import records
    from nlijob.errors import NotAvailableError
    from nlijob.run_folders import holds_a_run
    from nlijob.run_list import list_runs, table

    hint = "name the folder that holds runs, such as runs"
    if not folder.is_dir():
        raise NotAvailableError(f"{folder}: no such folder", hint)
    try:
        runs = list_runs(folder)
        what = "is a run itself" if not runs and holds_a_run(folder) else "holds no runs"
    except OSError as error:
        raise NotAvailableError(f"{folder} cannot be read: {error.strerror}", hint) from error
    if not runs:
        raise NotAvailableError(f"{folder} {what}", hint)
    if as_json:
        click.echo(records.dump(runs), nl=False)
    else:
        is_terminal = sys.stdout.isatty()
        for line in table(runs, os.get_terminal_size().columns if is_terminal else None):
            click.echo(line)
    check_output()
    return ExitCode.DONE
