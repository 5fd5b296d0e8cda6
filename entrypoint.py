#!/usr/bin/env python3
"""The container's command; nlijob.cli does the work."""

import sys

from nlijob.cli import main

if __name__ == "__main__":
    sys.exit(main())
