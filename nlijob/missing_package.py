"""What to say where Python lacks a package. Imports none itself."""

from __future__ import annotations

import sys

OWN = __name__.partition(".")[0]
HINT = (
    "start nlijob with the Python that has its packages, such as .venv/bin/python after `make "
    "report`, or install the package for this one"
)


def missing_package(error: BaseException) -> str:
    """Which package is not installed, as a message; "" for other errors.

    A module of nlijob's own that is missing is a bug, and no such error.
    """
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    package = (name or OWN).partition(".")[0]
    return "" if package == OWN else f"the package {package} is not installed for {sys.executable}"
