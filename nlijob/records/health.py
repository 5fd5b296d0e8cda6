"""What `doctor` finds out about a machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True)
class Check:
    """One thing that was checked."""

    name: str
    status: Status
    text: str
    """What was found."""
    advice: str = ""
    """What to do about it."""
    exit_code: int = 0
    """The code with which the job would end because of it; 0 unless the status is FAIL."""


@dataclass(frozen=True)
class Health:
    """All checks: the outcome of `doctor --json`."""

    checks: tuple[Check, ...]
    exit_code: int
    """That of the first check that failed, in the order in which the job would meet them."""
