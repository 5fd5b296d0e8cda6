"""The command line: finds the command, and reports errors with a message, a hint and an exit code.

Nothing heavy is imported at module level, so that `--help` answers at once.
"""

from __future__ import annotations

import io
import os
import sys
import traceback

import click

from nlijob import __version__, commands, stopping
from nlijob.commands.variables import check_variables
from nlijob.ending import end_of
from nlijob.errors import ExitCode
from nlijob.printable import printable
from nlijob.stopping import Stopped
from nlijob.streams import lasting_streams
from nlijob.terminal import Style, has_color, painted, writable

OWN_OPTIONS = ("-h", "--help", "--version")
ASKS_HELP = f"{__name__}.asks_help"
"""Key in the context's `meta`: whether the command line asks for help."""


class JobGroup(click.Group):
    """Loads a command when it is named; without a name, the options belong to `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` in front where no command is named."""
        names_none = not args or (args[0].startswith("-") and args[0] not in OWN_OPTIONS)
        if names_none and not ctx.resilient_parsing:  # shell completion offers the commands
            args = ["run", *args]
        ctx.meta[ASKS_HELP] = not set(args).isdisjoint(ctx.help_option_names)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of `--help`."""
        return list(commands.NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, or None."""
        return commands.load(cmd_name) if cmd_name in commands.NAMES else None


def main() -> int:
    """Run the command line; returns the exit code."""
    with lasting_streams():
        return _exit_code()


def _exit_code() -> int:
    try:
        return int(cli.main(standalone_mode=False) or ExitCode.DONE)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(printable(shown.getvalue()), err=True, nl=False)
        return ExitCode.CONFIGURATION
    except (Exception, Stopped, KeyboardInterrupt) as error:
        stopping.shutdown_begins()
        end = end_of(error)
        if end.exit_code == ExitCode.INTERNAL:
            traceback.print_exc()
        _print_error(end.message, end.hint)
        return end.exit_code


@click.group(cls=JobGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nlijob")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Fine-tune a language model on an NLI data set with QLoRA, and report what changed.

    Without a command, runs the whole job (`run`). Every option is also an environment variable:
    --train-size is NLIJOB_TRAIN_SIZE. Results go to standard output, everything else to standard
    error.

    Exit codes: 0 done, 2 usage or configuration, 3 gate failed, 4 model or data not available,
    5 unsuitable hardware or out of memory, 6 training diverged, 70 internal error, 74 disk full or
    not writable, 75 stopped.

    Completion in bash: eval "$(_NLIJOB_COMPLETE=bash_source nlijob)"; in zsh with zsh_source, in
    fish with fish_source.
    """
    # `run` looks at its variables itself, so that its notice tells of this fault too.
    if ctx.invoked_subcommand != "run" and not ctx.meta[ASKS_HELP]:
        check_variables(os.environ)


def _print_error(message: str, hint: str) -> None:
    _print_marked("error:", message, Style.BAD)
    if hint:
        _print_marked("hint:", hint, Style.BOLD)


def _print_marked(mark: str, text: str, style: Style) -> None:
    colored = has_color(sys.stderr)
    shown = painted(mark, style) if colored else mark
    click.echo(f"{shown} {writable(sys.stderr, printable(text))}", err=True, color=colored)
