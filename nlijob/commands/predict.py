"""`predict RUN|ADAPTER [INPUT]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nlijob.commands.options import FILE, FOLDER, option
from nlijob.errors import ExitCode


@click.command("predict")
@click.argument("source", metavar="RUN|ADAPTER", type=FOLDER)
@click.argument(
    "rows",
    metavar="[INPUT]",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    default=Path("-"),
)
@click.option(
    "-o", "--output", type=FILE, help="File for the labelled rows.  [default: standard output]"
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["jsonl", "csv", "tsv"]),
    help="Format of the rows.  [default: as the name of the input or the output says]",
)
@click.option("--premise-column", help="Column of the premise.  [default: as in the run]")
@click.option("--hypothesis-column", help="Column of the hypothesis.  [default: as in the run]")
@click.option("--base", is_flag=True, help="Use the base model, without the adapter.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="At a malformed row: end there, or leave it out.",
)
@click.option("--model", help="Hub id or folder of the base model, if it is elsewhere now.")
@option("device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to run.")
@option("offline", is_flag=True, help="Use only what is in the cache.")
def command(**options: Any) -> int:
    """Label premise and hypothesis pairs with a run's adapter.

    Reads JSON Lines, CSV or TSV from a file or standard input, and writes the same rows in the same
    order, with the predicted label and the probability of each label added.
    """
    from nlijob import stopping
    from nlijob.console import Console
    from nlijob.use.predict import Request, predict

    stopping.raise_on_signals()
    with Console() as console:
        predict(Request(**options), console)
    return ExitCode.DONE
