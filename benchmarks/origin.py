"""What a recorded figure says of its origin: date, command and versions, and no places."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "trl", "unsloth")
"""Packages whose versions a speed depends on."""


def origin(module: str, setting: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The first keys of a file of results.

    `module`: the module that measured, run as `python -m`; `setting`: what was measured, such as a
    shape; `arguments`: those of the command line.
    """
    return {
        "date": today(),
        "setting": setting,
        "command": command(module, arguments),
        "versions": versions(),
    }


def today() -> str:
    """The date in UTC, as YYYY-MM-DD."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def versions() -> dict[str, str]:
    """Package -> version, of those packages that are installed."""
    return {
        name: importlib.metadata.version(name)
        for name in PACKAGES
        if importlib.util.find_spec(name)
    }


def command(module: str, arguments: Sequence[str]) -> str:
    """The command as it can be typed, with DIR for each place on this machine."""
    return shlex.join(["python", "-m", module, *map(_without_place, arguments)])


def _without_place(argument: str) -> str:
    is_place = Path(argument).is_absolute() or ("/" in argument and Path(argument).exists())
    return "DIR" if is_place else argument
