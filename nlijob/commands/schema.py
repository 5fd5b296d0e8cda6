"""`schema`."""

from __future__ import annotations

import json

import click

from nlijob.errors import ExitCode
from nlijob.streams import check_output


@click.command("schema")
def command() -> int:
    """Print the JSON Schema of results.json."""
    from nlijob.schema import results_schema

    click.echo(json.dumps(results_schema(), indent=2))
    check_output()
    return ExitCode.DONE
