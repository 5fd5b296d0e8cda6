"""The commands, a module each, imported when a command is called or listed.

Adding a command is a module with a click command named `command`, and its name in `NAMES`. Modules
import at their top what is light, and in the command's body what is not: `--help` and shell
completion list all commands, and must answer at once.
"""

from __future__ import annotations

import importlib

import click

NAMES = ("run", "report", "compare", "index", "prefetch", "recipes", "schema")
"""In the order in which `--help` lists them."""


def load(name: str) -> click.Command:
    """The command of a name in `NAMES`."""
    command: click.Command = importlib.import_module(f"{__name__}.{name}").command
    return command
