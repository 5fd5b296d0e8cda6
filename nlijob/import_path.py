"""Keeps the user's files from being imported in place of modules of the same name.

Python puts the folder of a script, or the current folder after `-m`, first on the path, and an
empty entry of PYTHONPATH means the current folder. A `random.py` or `datasets.py` there would end
every command.
"""

import os
import sys


def put_own_folders_last() -> None:
    """Move them to the end of the path; call it after `import nlijob`, which may need them."""
    folders = set() if sys.flags.safe_path else set(sys.path[:1])
    try:  # noqa: SIM105 -- contextlib could already be the user's file
        folders |= {"", os.getcwd()}
    except OSError:  # it was deleted
        pass
    sys.path.sort(key=lambda folder: folder in folders)
