"""`index RUNS_DIR`."""

from __future__ import annotations

from pathlib import Path

import click

from nlijob.commands.options import FILE, FOLDER
from nlijob.errors import ExitCode
from nlijob.printable import printable


@click.command("index")
@click.argument("runs_dir", type=FOLDER)
@click.option(
    "--output",
    type=FILE,
    help="The page; the JSON is written beside it.  [default: RUNS_DIR/index.html]",
)
def command(runs_dir: Path, output: Path | None) -> int:
    """List the runs below a folder on a page, with their trend.

    Writes one HTML page that links to the runs' reports and, beside it, the same as JSON. Replaces
    pages that this command wrote earlier, and no other files.
    """
    from nlijob.report.index import write_index

    page, document = write_index(runs_dir, output or runs_dir / "index.html")
    click.echo(printable(f"Index: {page} ({document})"))
    return ExitCode.DONE
