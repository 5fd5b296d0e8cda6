"""`export RUN DIR`."""

from __future__ import annotations

from typing import Any

import click

from nlijob.commands.options import FOLDER, option
from nlijob.errors import ConfigurationError, ExitCode


@click.command("export")
@click.argument("run_dir", metavar="RUN", type=FOLDER)
@click.argument("target", metavar="DIR", type=FOLDER)
@click.option("--adapter", is_flag=True, help="Export the adapter alone, without a model.")
@click.option(
    "--push",
    metavar="OWNER/NAME",
    help="Publish the folder as this repository of the hub; a new one is private.",
)
@click.option("--public", is_flag=True, help="With --push: all may see the repository.")
@click.option("--model", help="Hub id or folder of the base model, if it is elsewhere now.")
@option("device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to run.")
@option("offline", is_flag=True, help="Use only what is in the cache.")
def command(**options: Any) -> int:
    """Write a run's model, merged with its adapter.

    DIR must not exist yet. It gets the weights, the tokenizer, a model card and the report. The
    merged model is scored on the run's test rows, and both accuracies are stated.
    """
    from nlijob import stopping
    from nlijob.console import Console
    from nlijob.use.export import Request, export

    if options["public"] and options["push"] is None:
        raise ConfigurationError("--public: there is nothing to publish without --push OWNER/NAME")
    stopping.raise_on_signals()
    with Console() as console:
        export(Request(**options), console)
    return ExitCode.DONE
