#!/usr/bin/env python3
"""The container's command; nlijob.__main__ does the work."""

import sys

from nlijob.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
