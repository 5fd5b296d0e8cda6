"""Two recipes compared by all trainings of both, on the same test rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nlijob.analysis.clustered import premises_as_units
from nlijob.analysis.crossed import mean_advantage
from nlijob.records.intervals import Interval


@dataclass(frozen=True)
class RecipeDifference:
    """The mean accuracy of two runs' trainings, at least one of which has several."""

    reference_trainings: int
    other_trainings: int
    reference_accuracy: float
    """Mean over the trainings on the common rows (0 to 1)."""
    other_accuracy: float
    difference: float
    """The other run's mean minus the reference's (-1 to 1)."""
    interval: Interval
    """95 % interval over other rows of this kind, and over other trainings of each run that has
    several."""
    p: float
    """Two-sided p of no difference, from the same interval."""
    premises: int | None = None
    """Number of premises, where the interval takes them as units; None where each row is one."""


def recipe_difference(
    reference: Sequence[Sequence[bool]],
    other: Sequence[Sequence[bool]],
    premises: Sequence[int],
) -> RecipeDifference | None:
    """The difference of two runs; None if both have one training.

    Both say for each row what each training is right on, [rows][trainings].
    """
    own, its = (np.array(rights, dtype=bool).T for rights in (reference, other))
    if len(own) == len(its) == 1:
        return None
    found = mean_advantage(its, own, premises)
    accuracies = float(own.mean()), float(its.mean())
    return RecipeDifference(
        reference_trainings=len(own),
        other_trainings=len(its),
        reference_accuracy=accuracies[0],
        other_accuracy=accuracies[1],
        difference=accuracies[1] - accuracies[0],
        interval=found.interval(),
        p=found.p(),
        premises=premises_as_units(premises),
    )
