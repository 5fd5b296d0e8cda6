"""The command: the console script, `python -m nlijob`, and what entrypoint.py runs."""

import sys

from nlijob.import_path import put_own_folders_last


def main() -> int:
    """Run the command line in a process that does nothing else; returns the exit code."""
    put_own_folders_last()
    from nlijob.bytecode import use_place
    from nlijob.errors import ExitCode
    from nlijob.missing_package import HINT, missing_package

    use_place()
    try:
        from nlijob.cli import main as run_command_line
    except ModuleNotFoundError as error:  # before there is anything that could tell it
        if not (what := missing_package(error)):
            raise
        print(f"error: {what}\nhint: {HINT}", file=sys.stderr)
        return ExitCode.CONFIGURATION
    return run_command_line()


if __name__ == "__main__":
    sys.exit(main())
