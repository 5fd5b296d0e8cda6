"""`compare RUN_DIR RUN_DIR...`."""

from __future__ import annotations

from pathlib import Path

import click

from nlijob.commands.options import FILE, FOLDER
from nlijob.errors import ExitCode
from nlijob.printable import printable


@click.command("compare")
@click.argument("run_dirs", nargs=-1, type=FOLDER)
@click.option(
    "--output",
    type=FILE,
    default=Path("compare.html"),
    show_default=True,
    help="The page; the JSON is written beside it.",
)
def command(run_dirs: tuple[Path, ...], output: Path) -> int:
    """Compare finished runs with the first one, row by row.

    Writes one HTML page and, beside it, the same as JSON: compare.html and compare.json in the
    current folder. Replaces pages that an earlier comparison wrote, and no other files.
    """
    from nlijob.report.comparison import write_comparison

    page, document = write_comparison(run_dirs, output)
    click.echo(printable(f"Comparison: {page} ({document})"))
    return ExitCode.DONE
