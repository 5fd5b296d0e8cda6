"""A search for settings: what the GPU side writes of it, and what is measured of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nlijob.records.intervals import Interval, PairedDifference
from nlijob.records.job import EpochResult, Selection

Setting = int | float | str
State = Literal["complete", "pruned", "failed"]
"""complete: trained to its end. pruned: stopped after an epoch. failed: its training diverged, or
memory did not suffice for it."""


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


# ---------------------------------------------------------------- what is measured of it


@dataclass(frozen=True)
class CandidateOutcome:
    """One candidate of a search, on the validation rows."""

    name: str
    settings: dict[str, Setting]
    state: State
    reason: str
    """Why it was stopped or failed; "" where it is complete."""
    epochs: int
    """Epochs that were completed."""
    selection: Selection | None
    """None where no epoch was completed; all figures below are then missing too."""
    rows: int
    """Validation rows."""
    correct: int | None
    accuracy_interval: Interval | None
    behind: PairedDifference | None
    """The best candidate compared with this one; None for the best, and for one that was not
    trained to its end."""
    adjusted_p: float | None
    """p of this comparison, Holm-adjusted over all that were made."""
    duration_s: float


@dataclass(frozen=True)
class Importance:
    """How much of the variance of the validation accuracy one setting explains by itself."""

    setting: str
    groups: int
    """Values that are compared; of a range, thirds of the candidates by their value."""
    share: float
    """Sum of squares between the groups' means, as a share (0 to 1) of the whole."""
    by_chance: float
    """The share to expect if the setting had no effect."""
    in_thirds: bool = False
    """Whether the groups are thirds of the candidates, as the setting has a range of values."""


@dataclass(frozen=True)
class Search:
    """A search for settings. Only validation rows play a part in it."""

    chosen_by: Literal["combinations", "optuna"]
    """Whether all combinations of listed values were tried, or those that Optuna chose."""
    seed: int
    """Seed of every candidate's training; the run's own trainings have others."""
    candidates: tuple[CandidateOutcome, ...]
    """In the order in which they were trained."""
    winner: str
    """Name of the candidate whose settings are those of the run."""
    rule: str
    alike: tuple[str, ...]
    """Names of complete candidates that are not distinguishable from the best one (adjusted p of
    0.05 or more)."""
    importance: tuple[Importance, ...]
    """The most important setting first; empty where there are too few complete candidates."""
    duration_s: float
    """Time of all candidates together."""
    premises: int | None = None
    """Number of premises, where intervals and tests take them as units; None where rows are."""
