"""The commands, one module each, which is imported when its command is called or listed.

To add a command, add a module that has a click command named `command`, and its name to `NAMES`.
The module imports everything heavy inside that function, because `--help` and shell completion load
all commands and must answer at once.
"""

from __future__ import annotations

import importlib

import click

NAMES = (
    "run",
    "plan",
    "doctor",
    "report",
    "compare",
    "index",
    "runs",
    "predict",
    "export",
    "prefetch",
    "recipes",
    "schema",
)
"""The commands in the order of `--help`."""


def load(name: str) -> click.Command:
    """The command of a name in `NAMES`."""
    command: click.Command = importlib.import_module(f"{__name__}.{name}").command
    return command
