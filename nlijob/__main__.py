"""`python -m nlijob`: the same as the console script."""

import sys

from nlijob.import_path import put_own_folders_last

if __name__ == "__main__":
    put_own_folders_last()
    from nlijob.cli import main

    sys.exit(main())
