"""Keeps the user's files from being imported in place of modules of the same name.

Python puts the folder of a script, or the current folder after `-m`, first on the path. A
`random.py` or `datasets.py` in it would end every command.
"""

import sys


def put_first_folder_last() -> None:
    """Move that folder to the end of the path; call it after `import nlijob`, which may need it."""
    if not sys.flags.safe_path and sys.path:
        sys.path.append(sys.path.pop(0))
