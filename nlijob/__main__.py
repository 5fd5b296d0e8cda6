"""`python -m nlijob`: the same as the console script."""

import sys

from nlijob.cli import main

if __name__ == "__main__":
    sys.exit(main())
