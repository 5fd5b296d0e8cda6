"""A search for settings: what the GPU side writes of it, and what is measured of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nlijob.records.job import EpochResult, Selection

Setting = int | float | str
State = Literal["complete", "pruned", "failed"]
"""complete: trained to its end. pruned: stopped after an epoch. failed: its training diverged."""


@dataclass(frozen=True)
class CandidateResult:
    """search/<name>/result.json: one training of a search. Test rows play no part in it."""

    name: str
    """Its name within the search, such as "candidate-3"."""
    settings: dict[str, Setting]
    """Setting that the search changes -> its value here."""
    state: State
    epochs: tuple[EpochResult, ...]
    """Those that were completed."""
    selection: Selection | None
    """The best of these epochs by the rule of a training; None where none was completed."""
    reason: str
    """Why it was stopped or failed; "" where it is complete."""
    duration_s: float
    """Time of the training with its scoring; without the preparation of its shapes."""


@dataclass(frozen=True)
class Winner:
    """search/winner.json: the settings with the best validation accuracy."""

    name: str
    settings: dict[str, Setting]
    rule: str
    candidates: int
    """Number of candidates, with those that were stopped or failed."""
