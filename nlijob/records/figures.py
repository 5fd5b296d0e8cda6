"""The main figures of a run, for lists of runs and comparisons: figures.json."""

from __future__ import annotations

from dataclasses import dataclass

from nlijob.config import JobConfig
from nlijob.records.intervals import Interval, PairedDifference
from nlijob.records.trials import Expected

RUN_FIGURES_VERSION = 1
"""Raised where `RunFigures` gains what an older results.json could tell: lists of runs then read
that instead of an older figures.json."""


@dataclass(frozen=True)
class SetFigures:
    """Accuracies on a further test set."""

    name: str
    rows: int
    rows_sha256: str
    """Hash of the rows that were taken of the set."""
    base_accuracy: float
    tuned_accuracy: float
    """Of the training whose adapter is kept."""
    change: PairedDifference
    adjusted_p: float


@dataclass(frozen=True)
class Figures:
    """Main figures of a run; None for what was not measured."""

    run_id: str
    recipe: str
    created_at: str
    nlijob_version: str
    model: str
    dataset: str
    devices: tuple[str, ...]
    """Names of the GPUs, or of the processor."""
    has_gpu: bool
    train_rows: int
    test_rows: int
    test_rows_sha256: str
    base_accuracy: float
    base_accuracy_interval: Interval
    tuned_accuracy: float
    tuned_accuracy_interval: Interval
    gain: float
    gain_interval: Interval
    mcnemar_p: float
    base_balanced_accuracy: float
    tuned_balanced_accuracy: float
    base_macro_f1: float
    tuned_macro_f1: float
    both_right: int
    corrected: int
    still_wrong: int
    newly_broken: int
    selected_epoch: int
    epochs: int
    attempts: int
    total_s: float
    training_s: float | None
    training_examples_per_s: float
    cost: float | None
    currency: str
    energy_j: float | None
    peak_gpu_bytes: int | None
    """Peak of the memory allocated by torch."""
    peak_ram_bytes: int | None
    trainable_parameters: int
    gates: bool | None
    """Whether all gates are met; None without gates."""
    is_least: bool = False
    """Whether time and cost are lower bounds, because an attempt did not record its end."""
    trainings: int = 1
    """With several, accuracy, gain and all other figures of the tuned model are of the one whose
    adapter is kept, but for the next two."""
    accuracy_over_trainings: Expected | None = None
    """None with one training."""
    gain_over_trainings: Expected | None = None
    elsewhere: tuple[SetFigures, ...] = ()
    """Each further test set, in the order of the recipe."""

    @property
    def expected_accuracy(self) -> float:
        """Accuracy to expect of the recipe: the mean over the trainings where there are several."""
        over = self.accuracy_over_trainings
        return self.tuned_accuracy if over is None else over.mean

    @property
    def expected_interval(self) -> Interval:
        """The interval of `expected_accuracy`."""
        over = self.accuracy_over_trainings
        return self.tuned_accuracy_interval if over is None else over.interval


@dataclass(frozen=True)
class RunFigures:
    """figures.json: the part of results.json that lists of runs need, which is small."""

    version: int
    """See `RUN_FIGURES_VERSION`."""
    config: JobConfig
    figures: Figures
    train_rows_sha256: str
    """Hash of the training rows; "" where there are none."""
    packages: dict[str, str]
    rows: tuple[int, ...]
    """Row numbers of all test rows."""
    wrong: tuple[int, ...]
    """Row numbers of the test rows that the tuned model labels incorrectly, sorted."""
    premises: tuple[int, ...]
    """Number of the premise of each test row; empty where each row is a unit."""
    tone: str = ""
    """What the page's verdict says of the tuned model: "better", "worse" or "unclear"; "" where it
    was not asked."""
    made_from: str = ""
    """Hash of the settings and markers of the run that the report was made from (see
    `nlijob.analysis.run_figures.made_from`); "" where they do not belong together."""
