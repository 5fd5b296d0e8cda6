"""What several trainings of one recipe say together: part of results.json.

A trial is one training: a seed, and in a search some other settings. All trials of a run share the
base model, the rows and the baseline.
"""

from __future__ import annotations

from dataclasses import dataclass

from nlijob.records.intervals import Interval, PairedDifference
from nlijob.records.job import EpochResult, Selection


@dataclass(frozen=True)
class TrialOutcome:
    """The tuned model of one training on the test rows."""

    name: str
    """Its name within the run, such as "seed-43"."""
    seed: int
    epochs: tuple[EpochResult, ...]
    selection: Selection
    rows: int
    correct: int
    accuracy: float
    accuracy_interval: Interval
    """Of this adapter alone, on other rows."""
    loss: float
    change: PairedDifference
    """This training's tuned model compared with the base model."""
    adjusted_p: float | None = None
    """p of this comparison, Holm-adjusted over all trainings of the run; None where not known."""
    answers: tuple[int, ...] = ()
    """How many test rows it answers with label 0, 1, 2, ...; empty where not known."""


@dataclass(frozen=True)
class Expected:
    """A figure of a recipe: its mean over the trainings, and what another sample would give."""

    mean: float
    interval: Interval
    """95 % interval of the mean over all trainings and all rows of this kind: see
    `nlijob.analysis.crossed`."""
    another: Interval | None
    """95 % interval for one further training on as many other rows; None with two trainings, which
    do not tell."""
    lowest: float
    """The smallest figure of a training on the rows at hand."""
    highest: float


@dataclass(frozen=True)
class VarianceShares:
    """Where the uncertainty of the mean accuracy comes from. The three shares sum to 1."""

    trainings: float
    """Share (0 to 1) due to the choice of trainings: it shrinks with more seeds."""
    rows: float
    """Share due to the choice of test rows: it shrinks with more test rows."""
    both: float
    """Share due to rows that this training or that happens to answer; it shrinks with either."""
    half_width: float
    """Half-width (0 to 1) of the interval of the mean accuracy now."""
    half_width_more_trainings: float
    """Half-width expected with twice as many trainings."""
    half_width_more_rows: float
    """Half-width expected with twice as many test rows."""


@dataclass(frozen=True)
class RowsAcross:
    """Test rows by the number of trainings that label them correctly."""

    in_all: int
    in_some: int
    in_none: int
    counts: tuple[int, ...]
    """counts[k] is the number of rows that exactly k trainings label correctly."""
    corrected_in_all: int
    """Rows that the base model gets wrong and every training gets right."""
    broken_in_all: int
    """Rows that the base model gets right and every training gets wrong."""
    disagreement: float
    """Share of the rows (0 to 1) on which two trainings answer differently, mean over all pairs."""


@dataclass(frozen=True)
class Ensemble:
    """The mean of all trainings' probabilities as one model: a control."""

    rows: int
    correct: int
    accuracy: float
    accuracy_interval: Interval
    over_kept: PairedDifference
    """The ensemble compared with the training whose adapter is kept."""


@dataclass(frozen=True)
class Trials:
    """What several trainings say together."""

    trials: tuple[TrialOutcome, ...]
    """In the order of the configuration."""
    kept: str
    """Name of the training with the best validation accuracy. Its adapter is the run's, and the
    other sections of the report are about it."""
    accuracy: Expected
    gain: Expected
    """Tuned minus base test accuracy (-1 to 1)."""
    helped: int
    """Trainings that are better than the base model beyond chance (adjusted p below 0.05)."""
    harmed: int
    """Trainings that are worse than the base model beyond chance."""
    variance: VarianceShares
    rows: RowsAcross
    ensemble: Ensemble
    premises: int | None = None
    """Number of premises, where intervals take them as units because some have several rows; None
    where each row is a unit."""
    far_off: tuple[str, ...] = ()
    """Names of trainings whose accuracy is far off that of all others, beyond chance."""
