"""The command: the console script, `python -m nlijob`, and what entrypoint.py runs."""

import sys

from nlijob.import_path import put_own_folders_last


def main() -> int:
    """Run the command line in a process that does nothing else; returns the exit code."""
    put_own_folders_last()
    from nlijob.bytecode import use_place

    use_place()
    from nlijob.cli import main as run_command_line

    return run_command_line()


if __name__ == "__main__":
    sys.exit(main())
