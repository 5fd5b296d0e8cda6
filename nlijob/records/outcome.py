"""results.json: everything that is measured of a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nlijob.records.job import (
    FORMAT_VERSION,
    Environment,
    EpochResult,
    Manifest,
    OccludedWord,
    ParameterCounts,
    Plan,
    PromptRecord,
    RunRecord,
    Selection,
    Split,
    SplitScore,
    TimingKind,
)

SIGNIFICANT = 0.05
"""p-values below it count as a difference."""


@dataclass(frozen=True)
class ClassMetrics:
    """One label's figures (one against the rest)."""

    label: int
    name: str
    support: int
    predicted: int
    precision: float | None
    """None where the label was never predicted."""
    recall: float | None
    """None where the label has no row."""
    f1: float


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """How much more often one model is right than another on the same rows."""

    gained: int
    """Rows that only the first has right."""
    lost: int
    """Rows that only the second has right."""
    difference: float
    """Accuracy of the first minus that of the second (-1 to 1)."""
    interval: Interval
    mcnemar_p: float
    """Exact, two-sided."""


ControlKind = Literal["majority class", "few-shot", "blank premise"]


@dataclass(frozen=True)
class Control:
    """Something simpler than tuning, measured on the same test rows."""

    kind: ControlKind
    """Always the commonest label; the base model with training rows in its prompt; the tuned model
    without the premise."""
    rows: int
    correct: int
    accuracy: float
    accuracy_interval: Interval
    tuned_over_it: PairedDifference
    """The tuned model, as it is, against this."""


@dataclass(frozen=True)
class ReliabilityBin:
    """The rows whose answer had a probability above `low` and up to `high`."""

    low: float
    high: float
    rows: int
    correct: int
    mean_confidence: float | None
    """None, as the next two, where the bin has no rows."""
    accuracy: float | None
    accuracy_interval: Interval | None


@dataclass(frozen=True)
class Calibration:
    """How well one model's probabilities fit how often it is right."""

    rows: int
    mean_confidence: float
    """Mean probability of the label answered."""
    accuracy: float
    bins: tuple[ReliabilityBin, ...]
    """Of equal width over 0 to 1, empty ones among them."""
    ece: float
    """Expected calibration error (0 to 1): mean distance of confidence and accuracy in the bins."""
    ece_if_calibrated: float
    """The mean ECE of a perfectly calibrated model with these rows' confidences."""
    ece_if_calibrated_high: float
    """Such a model would stay at or below this in 95 % of cases."""
    brier: float
    """Brier score, summed over the labels: 0 (sure and right) to 2 (sure and wrong)."""

    @property
    def told_apart(self) -> bool:
        """Whether the ECE is beyond what perfect calibration explains on these rows."""
        return self.ece > self.ece_if_calibrated_high + 1e-9  # two ways of summing


@dataclass(frozen=True)
class Metrics:
    """One model on the test split."""

    rows: int
    correct: int
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    macro_f1: float
    calibration: Calibration
    loss: float
    label_mass: float | None
    """Causal head: mean share of the vocabulary's probability on the label tokens."""
    confusion: tuple[tuple[int, ...], ...]
    """confusion[gold][predicted] = rows."""
    classes: tuple[ClassMetrics, ...]


@dataclass(frozen=True)
class ChangeIntervals:
    """95 % intervals of one figure before and after tuning, and of its change (after - before).

    None where all rows and all answers are of one label, so that resampling shows nothing.
    """

    base: Interval | None
    tuned: Interval | None
    change: Interval | None


@dataclass(frozen=True)
class BootstrapIntervals:
    """Bootstrap intervals of both models on the same rows."""

    rows: int
    resamples: int
    balanced_accuracy: ChangeIntervals
    macro_f1: ChangeIntervals


@dataclass(frozen=True)
class Narrowing:
    """Half-widths of 95 % intervals (shares, 0 to 1) on the rows at hand and on more of them."""

    rows_now: int
    rows_full: int
    accuracy_now: float
    accuracy_full: float
    gain_now: float
    gain_full: float


@dataclass(frozen=True)
class LabelShare:
    """Test rows of one label."""

    label: int
    name: str
    gold: int
    base: int
    """Rows that the base model gave this label, right or wrong."""
    tuned: int


@dataclass(frozen=True)
class LabelBias:
    """Gold labels against both models' answers on the same rows."""

    rows: int
    labels: tuple[LabelShare, ...]
    base_distance: float
    """Total variation distance of the answers' shares from the gold shares (0 to 1): the share of
    answers that would have to be another label for the shares to agree."""
    tuned_distance: float


@dataclass(frozen=True)
class Slice:
    """The test rows of one kind under both models."""

    family: str
    """"gold label", "length", "word overlap" or "tag"."""
    key: str
    """Within its family."""
    name: str
    meaning: str
    """The bounds, in words."""
    rows: int
    base_correct: int
    tuned_correct: int
    corrected: int
    broken: int
    base_interval: Interval
    """Of the accuracy, 95 % (Wilson)."""
    tuned_interval: Interval
    change: float
    """Tuned minus base accuracy (-1 to 1)."""
    change_interval: Interval
    p: float | None
    """Exact McNemar test; None where the slice has too few rows to judge."""
    adjusted_p: float | None
    """Holm-adjusted over all judged slices of the run."""

    @property
    def judged(self) -> bool:
        """Whether it has rows enough for a test."""
        return self.p is not None

    @property
    def told_apart(self) -> bool:
        """Whether before and after differ beyond what chance explains."""
        return self.adjusted_p is not None and self.adjusted_p < SIGNIFICANT


@dataclass(frozen=True)
class EpochComparison:
    """The kept epoch against another one on the same rows."""

    epoch: int
    """The other one."""
    rows: int
    selected_alone: int
    """Rows that only the kept epoch labels right."""
    other_alone: int
    p: float
    """Exact two-sided McNemar test."""
    adjusted_p: float
    """Holm-adjusted over the epochs compared."""

    @property
    def told_apart(self) -> bool:
        """Whether the rows tell the two epochs apart."""
        return self.adjusted_p < SIGNIFICANT


@dataclass(frozen=True)
class Case:
    """A test row on which the two models are compared."""

    index: int
    premise: str
    hypothesis: str
    label: int
    base_predicted: int
    base_probabilities: tuple[float, ...]
    tuned_predicted: int
    tuned_probabilities: tuple[float, ...]
    base_text: str | None
    """What the base model wrote freely; None where none was generated."""
    tuned_text: str | None
    tags: tuple[str, ...]
    explanation: str
    """Possible reasons, worded as such."""
    only_in_premise: tuple[str, ...]
    """Content words, lower case, in order."""
    only_in_hypothesis: tuple[str, ...]
    overlap: float | None
    """Share of the hypothesis's content words that stand in the premise; None where it has none."""
    word_importance: tuple[OccludedWord, ...]
    """Empty where it was not measured."""
    words_not_tried: int


@dataclass(frozen=True)
class CaseRow:
    """A test row that at least one of the two models has wrong."""

    index: int
    premise: str
    hypothesis: str
    label: int
    base_predicted: int
    tuned_predicted: int
    base_gold_probability: float
    """Probability that the base model gave the gold label."""
    tuned_gold_probability: float
    margin: float
    """The tuned model's probability of the gold label minus its highest of another (-1 to 1)."""
    tags: tuple[str, ...]
    """Keys of the tags that hold for its texts."""


@dataclass(frozen=True)
class CaseGroups:
    """The test rows by what tuning did to them."""

    both_right: int
    corrected: int
    still_wrong: int
    newly_broken: int
    shown_corrected: tuple[Case, ...]
    shown_still_wrong: tuple[Case, ...]
    shown_newly_broken: tuple[Case, ...]
    rows_corrected: tuple[CaseRow, ...]
    """Every row of the kind, the largest margin first."""
    rows_still_wrong: tuple[CaseRow, ...]
    """Every row of the kind, the clearest mistake first."""
    rows_newly_broken: tuple[CaseRow, ...]
    """Every row of the kind, the clearest mistake first."""


@dataclass(frozen=True)
class PartTime:
    """Seconds of one part of a stage over all attempts."""

    name: str
    kind: TimingKind
    epoch: int | None
    split: Split | None
    duration_s: float


@dataclass(frozen=True)
class StageTime:
    """Seconds of one stage over all attempts, and of its parts."""

    stage: str
    duration_s: float
    parts: dict[str, float]
    """Name of the part -> seconds."""
    examples_per_s: float | None
    timed_parts: tuple[PartTime, ...] = ()
    """The same parts, with what each was spent on."""


@dataclass(frozen=True)
class GpuUse:
    """One GPU over the job."""

    name: str
    uuid: str | None
    driver_version: str | None
    total_memory_bytes: int
    mean_load: float | None
    mean_training_load: float | None
    """Over the samples taken while the train stage ran."""
    max_load: float | None
    max_memory_used_bytes: int | None
    energy_j: float | None
    mean_power_w: float | None
    max_temperature_c: float | None
    attempts: tuple[int, ...] = ()
    """Those in which it was sampled."""


@dataclass(frozen=True)
class ResourceUse:
    """What the job took of the machine."""

    samples: int
    gpus: tuple[GpuUse, ...]
    peak_allocated_bytes: int | None
    peak_reserved_bytes: int | None
    mean_cpu_load: float | None
    max_ram_used_bytes: int | None
    min_disk_free_bytes: int | None


@dataclass(frozen=True)
class Cost:
    """What the time of all attempts cost."""

    amount: float
    currency: str
    price_per_hour: float
    """On average, where attempts ran on machines of other prices."""
    source: str
    """Where the price is from, in words."""


@dataclass(frozen=True)
class Finding:
    """Something that a reader of the outcome should know."""

    code: str
    """The kind of finding, for programs; "" in outcomes that record format 2 held."""
    figures: dict[str, int | float | str]
    """The figures that the text tells."""
    text: str


@dataclass(frozen=True)
class Gates:
    """Outcome of --min-accuracy and --min-gain."""

    passed: bool
    failures: tuple[Finding, ...]


@dataclass(frozen=True)
class Results:
    """results.json: the whole outcome in one file."""

    run: RunRecord
    environment: Environment
    manifest: Manifest
    prompt: PromptRecord
    plan: Plan
    parameters: ParameterCounts
    base: Metrics
    tuned: Metrics
    gain: float
    """Tuned minus base test accuracy (-1 to 1)."""
    gain_interval: Interval
    mcnemar_p: float
    """Exact two-sided McNemar test on the test rows."""
    bootstrap: BootstrapIntervals
    on_all_rows: Narrowing | None
    """What the whole test split would do to the intervals; None where it was taken."""
    label_bias: LabelBias
    slices: tuple[Slice, ...]
    """The most telling first."""
    controls: tuple[Control, ...]
    """Majority class, then those that were asked for."""
    base_validation: SplitScore | None
    """The base model on validation rows, where it was scored there."""
    epochs: tuple[EpochResult, ...]
    selection: Selection
    epoch_comparisons: tuple[EpochComparison, ...]
    """The selected epoch against each other one on the validation rows."""
    cases: CaseGroups
    total_s: float
    attempts: int
    stages: tuple[StageTime, ...]
    training_examples_per_s: float
    resources: ResourceUse
    cost: Cost | None
    """None where no price was given."""
    gates: Gates
    warnings: tuple[Finding, ...] = ()
    format_version: int = FORMAT_VERSION
