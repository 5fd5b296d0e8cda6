"""docs/commands.md has every command, option, environment variable and exit code, and no other."""

from __future__ import annotations

import re

import click
import pytest

from nlijob.cli import cli
from nlijob.errors import ExitCode
from tests import markdown
from tests.docs.pages import DOCS

PAGE = DOCS / "commands.md"
COMMANDS = cli.list_commands(click.Context(cli))


def options_of(command: click.Command) -> dict[str, str | None]:
    """Option -> its environment variable, or None."""
    options = [param for param in command.params if isinstance(param, click.Option)]
    return {option.opts[-1]: str(option.envvar) if option.envvar else None for option in options}


def documented_options(text: str) -> dict[str, str | None]:
    """Option -> environment variable, as the tables of a text name them.

    A command that "takes the options of `run`" has those as well.
    """
    found: dict[str, str | None] = {}
    if "takes the options of [`run`](#run)" in text:
        found = documented_options(markdown.section(PAGE, "run"))
    for first, *others in markdown.table(text):
        if option := re.search(r"--[\w-]+", first):
            variable = re.search(r"NLIJOB_\w+", " ".join(others[:1]))
            found[option[0]] = variable[0] if variable else None
    return found


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found
    return found


def test_every_command_is_in_the_table_at_the_top() -> None:
    top = PAGE.read_text("utf-8").partition("\n## ")[0]
    named = [match for row in markdown.table(top) if (match := re.search(r"`(\w+)`", row[0]))]
    assert sorted(match[1] for match in named) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_of_a_command_are_those_of_the_code(name: str) -> None:
    documented = documented_options(markdown.section(PAGE, name))
    assert documented == options_of(command(name))


def test_options_of_all_commands_are_documented() -> None:
    text = PAGE.read_text("utf-8")
    assert all(option in text for option in options_of(cli))


def test_exit_codes_are_those_of_the_code() -> None:
    rows = markdown.table(markdown.section(PAGE, "Exit codes"))
    assert [row[0] for row in rows[1:]] == [str(int(code)) for code in ExitCode]
    rows = markdown.table(markdown.section(DOCS / "reliability.md", "Exit codes for a scheduler"))
    assert [row[0] for row in rows[1:]] == [str(int(code)) for code in ExitCode]
