#!/usr/bin/env python3
"""The container's one command; all it does is in nlijob.cli."""

import sys

from nlijob.cli import main

if __name__ == "__main__":
    sys.exit(main())
