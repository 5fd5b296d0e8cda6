"""results.json: everything measured about a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nlijob.records.forgetting import Forgetting, TaskChange
from nlijob.records.intervals import Interval, PairedDifference
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
from nlijob.records.search import Search
from nlijob.records.tracking import TrackerState
from nlijob.records.transfer import TransferManifest
from nlijob.records.trials import Trials

SIGNIFICANT = 0.05
"""A difference with a p-value below this counts as significant."""


@dataclass(frozen=True)
class ClassMetrics:
    """Figures of one label against all others."""

    label: int
    name: str
    support: int
    predicted: int
    precision: float | None
    """None where the label was never predicted."""
    recall: float | None
    """None where the label has no row."""
    f1: float


ControlKind = Literal["majority class", "few-shot", "blank premise"]


@dataclass(frozen=True)
class Control:
    """A simple baseline, scored on the same test rows as the tuned model."""

    kind: ControlKind
    """majority class: always the most frequent label; few-shot: the base model with training rows
    in its prompt; blank premise: the tuned model without the premise."""
    rows: int
    correct: int
    accuracy: float
    accuracy_interval: Interval
    tuned_over_it: PairedDifference
    """The tuned model compared with the control."""
    labels: tuple[str, ...] = ()
    """Majority class: the most frequent labels, several if they are equally frequent; the first
    stands for all of them. Empty for other controls and where not known."""
    over_majority: PairedDifference | None = None
    """Other controls: the control compared with the majority class. None where not known."""


@dataclass(frozen=True)
class ReliabilityBin:
    """The rows whose predicted label has a probability above `low` and up to `high`."""

    low: float
    high: float
    rows: int
    correct: int
    mean_confidence: float | None
    """None where the bin has no rows, as are the next two."""
    accuracy: float | None
    accuracy_interval: Interval | None


@dataclass(frozen=True)
class Calibration:
    """How well a model's probabilities match its accuracy."""

    rows: int
    mean_confidence: float
    """Mean probability of the predicted label."""
    accuracy: float
    bins: tuple[ReliabilityBin, ...]
    """Bins of equal width from 0 to 1, including empty ones."""
    ece: float
    """Expected calibration error (0 to 1): mean distance of confidence and accuracy by bin."""
    ece_if_calibrated: float
    """Mean ECE of a perfectly calibrated model with the same confidences."""
    ece_if_calibrated_high: float
    """95th percentile of the ECE of such a model."""
    brier: float
    """Brier score summed over the labels: 0 (certain and right) to 2 (certain and wrong)."""

    @property
    def is_significant(self) -> bool:
        """Whether the ECE is higher than chance explains for a perfectly calibrated model."""
        return self.ece > self.ece_if_calibrated_high + 1e-9  # rounding differs


@dataclass(frozen=True)
class Metrics:
    """Figures of one model on the test rows."""

    rows: int
    correct: int
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    macro_f1: float
    calibration: Calibration
    loss: float
    label_mass: float | None
    """Causal head: mean probability of all label tokens together, within the whole vocabulary."""
    confusion: tuple[tuple[int, ...], ...]
    """confusion[gold][predicted] is a number of rows."""
    classes: tuple[ClassMetrics, ...]


@dataclass(frozen=True)
class PremiseGroups:
    """How rows share premises. Rows that do are not independent."""

    rows: int
    premises: int
    most_rows: int
    """Most rows that share one premise."""
    numbers: tuple[int, ...] = ()
    """Number of each row's premise, in the order of the manifest's `indices`; empty where each row
    is a unit, because no premise repeats or there is only one."""


@dataclass(frozen=True)
class ChangeIntervals:
    """95 % intervals of one figure before and after tuning, and of its change (after - before).

    None where all rows and all predictions have the same label: resampling cannot vary them.
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
    premises: int | None = None
    """Number of premises that were resampled; None where rows were."""


@dataclass(frozen=True)
class Narrowing:
    """Half-widths (0 to 1) of 95 % intervals on the scored rows and on the whole split."""

    rows_now: int
    rows_full: int
    accuracy_now: float
    accuracy_full: float
    gain_now: float
    gain_full: float


@dataclass(frozen=True)
class LabelShare:
    """Number of test rows with one label."""

    label: int
    name: str
    gold: int
    base: int
    """Rows for which the base model predicts the label, right or wrong."""
    tuned: int
    """Rows for which the tuned model predicts the label, right or wrong."""


@dataclass(frozen=True)
class LabelBias:
    """Label frequencies in the gold labels and in both models' predictions."""

    rows: int
    labels: tuple[LabelShare, ...]
    base_distance: float
    """Total variation distance (0 to 1) between the frequencies of predictions and gold labels: the
    share of predictions that would have to change for the frequencies to agree."""
    tuned_distance: float


@dataclass(frozen=True)
class Slice:
    """Both models' figures on the test rows of one kind."""

    family: str
    """"gold label", "length", "word overlap", "tag", "annotators" or "column"."""
    key: str
    """Identifier within the family."""
    name: str
    meaning: str
    """Which rows belong to the slice, in words."""
    rows: int
    base_correct: int
    tuned_correct: int
    corrected: int
    broken: int
    base_interval: Interval
    """95 % Wilson interval of the accuracy."""
    tuned_interval: Interval
    change: float
    """Tuned minus base accuracy (-1 to 1)."""
    change_interval: Interval
    p: float | None
    """Exact McNemar test; None where the slice has too few rows, or premises, for a test."""
    adjusted_p: float | None
    """p, Holm-adjusted over all tested slices of the run."""
    premises: int | None = None
    """Number of premises, where intervals and test take them as units; None where each row is a
    unit."""
    column: str = ""
    """Family "column": the further column of the source."""
    value: str = ""
    """Family "column": its value in these rows."""
    wrong_rows: tuple[int, ...] = ()
    """Numbers of its rows that at least one model labels incorrectly, in order; empty where there
    are none or where this is not known."""

    @property
    def judged(self) -> bool:
        """Whether the slice has enough rows for a test."""
        return self.p is not None

    @property
    def is_significant(self) -> bool:
        """Whether the change is statistically significant."""
        return self.adjusted_p is not None and self.adjusted_p < SIGNIFICANT


@dataclass(frozen=True)
class TransferScore:
    """One model on a further test set."""

    correct: int
    accuracy: float
    accuracy_interval: Interval
    correct_by_sum: int
    """Rows that would be correct if the probabilities of the answers that count for one label of
    the set were added up, and the highest sum counted instead of the most probable answer."""


@dataclass(frozen=True)
class TransferTrial:
    """The tuned model of one of several trainings on a further test set."""

    name: str
    seed: int
    correct: int
    accuracy: float
    change: PairedDifference
    """This training's tuned model compared with the base model."""


@dataclass(frozen=True)
class GainsCompared:
    """The gain on a further test set compared with that on the run's own test rows."""

    difference: float
    """Gain there minus gain here (-2 to 2)."""
    interval: Interval


TransferVerdict = Literal["gain", "unclear", "loss"]
Severity = Literal["against", "limits", "note"]


@dataclass(frozen=True)
class TransferResult:
    """Both models on a further test set."""

    manifest: TransferManifest
    rows: int
    """Rows that were scored."""
    too_long: int
    """Rows that were left out as too long for the model."""
    majority: float
    """Accuracy of always answering the set's most frequent label."""
    base: TransferScore
    tuned: TransferScore
    """The training whose adapter is kept."""
    change: PairedDifference
    adjusted_p: float
    """p of the change, Holm-adjusted over all further test sets."""
    verdict: TransferVerdict
    """Whether tuning made the model better or worse there beyond chance."""
    over_own: GainsCompared | None
    """None where the set tells fewer labels apart than the run, so that the gains are of different
    questions."""
    slices: tuple[Slice, ...]
    """By the set's labels and by its further columns; p is adjusted within the set."""
    trials: tuple[TransferTrial, ...] = ()
    """All trainings in the order of the configuration; empty where there is one."""


@dataclass(frozen=True)
class Voice:
    """How often one model, or a single annotator, gives the label that others gave (0 to 1)."""

    gold: float
    """Agreement with the gold label: a model's accuracy on these rows. An annotator's own label is
    among those that the gold label was made from, so that it is too high."""
    gold_interval: Interval
    others: float
    """Agreement with the most frequent label of all annotators but one, each left out in turn; a
    single annotator is compared with the others."""
    others_interval: Interval


@dataclass(frozen=True)
class PeopleDifference:
    """The tuned model's agreement with the other annotators minus that of a single annotator."""

    difference: float
    """From -1 to 1."""
    interval: Interval
    p: float
    """Two-sided sign-flip test on the rows, or on the premises where they repeat."""

    @property
    def is_significant(self) -> bool:
        """Whether the two differ significantly."""
        return self.p < SIGNIFICANT


@dataclass(frozen=True)
class Annotators:
    """The models compared with single annotators, on the test rows that at least two labelled."""

    rows: int
    rows_without: int
    """Test rows with the labels of fewer than two annotators, which are left out."""
    labels: int
    """Labels that the annotators gave in these rows."""
    fewest_labels: int
    """Fewest annotators of a row."""
    most_labels: int
    """Most annotators of a row."""
    unanimous: int
    """Rows in which all annotators gave the same label."""
    other_gold: int
    """Rows whose gold label is not the annotators' most frequent one."""
    base: Voice
    tuned: Voice
    annotator: Voice
    """A single annotator: the mean over the annotators of each row."""
    tuned_over_annotator: PeopleDifference
    premises: int | None = None
    """Number of premises, where intervals and test take them as units; None where each row is a
    unit."""


@dataclass(frozen=True)
class EpochComparison:
    """The selected epoch compared with another one on the same rows."""

    epoch: int
    """The other epoch."""
    rows: int
    selected_alone: int
    """Rows that only the selected epoch labels correctly."""
    other_alone: int
    """Rows that only the other epoch labels correctly."""
    p: float
    """Exact two-sided McNemar test."""
    adjusted_p: float
    """p, Holm-adjusted over the compared epochs."""
    premises: int | None = None
    """Number of premises, where the test takes them as units; None where each row is a unit."""

    @property
    def is_significant(self) -> bool:
        """Whether the two epochs differ significantly on these rows."""
        return self.adjusted_p < SIGNIFICANT


@dataclass(frozen=True)
class ValidationInterval:
    """The 95 % interval of the validation accuracy after one epoch; epoch 0 is the base model."""

    epoch: int
    interval: Interval


@dataclass(frozen=True)
class LossChange:
    """Change of the mean validation loss from its lowest epoch to the last one."""

    from_epoch: int
    to_epoch: int
    rows: int
    difference: float
    """Loss of the last epoch minus that of the earlier one, in nats."""
    p: float
    """Two-sided sign-flip test on the rows, or on the premises where they repeat."""
    adjusted_p: float
    """p times the number of epochs before the last, as the lowest of them was chosen (Bonferroni),
    at most 1."""
    premises: int | None = None
    """Number of premises, where the test takes them as units; None where each row is a unit."""

    @property
    def is_significant(self) -> bool:
        """Whether the validation loss changed significantly."""
        return self.adjusted_p < SIGNIFICANT


@dataclass(frozen=True)
class Case:
    """A test row that the report shows in detail."""

    index: int
    premise: str
    hypothesis: str
    label: int
    base_predicted: int
    base_probabilities: tuple[float, ...]
    tuned_predicted: int
    tuned_probabilities: tuple[float, ...]
    base_text: str | None
    """Free text of the base model; None where none was generated."""
    tuned_text: str | None
    tags: tuple[str, ...]
    explanation: str
    """Possible reasons for the answers; none of them is verified."""
    only_in_premise: tuple[str, ...]
    """Content words that occur in the premise only, in lower case and in order."""
    only_in_hypothesis: tuple[str, ...]
    overlap: float | None
    """Share of the hypothesis's content words that occur in the premise; None without any."""
    word_importance: tuple[OccludedWord, ...]
    """Empty where it was not measured."""
    words_not_tried: int
    reasons: tuple[Finding, ...] = ()
    """The sentences of the explanation, with codes; empty in outcomes of record format 2."""
    right_in: int | None = None
    """Number of trainings that label the row correctly; None where there is one training."""


@dataclass(frozen=True)
class CaseRow:
    """A test row that at least one of the two models labels incorrectly."""

    index: int
    premise: str
    hypothesis: str
    label: int
    base_predicted: int
    tuned_predicted: int
    base_gold_probability: float
    """Base model's probability of the gold label."""
    tuned_gold_probability: float
    margin: float
    """Tuned model's probability of the gold label minus that of the best other label (-1 to 1)."""
    tags: tuple[str, ...]
    """Keys of the tags that apply to the texts."""
    right_in: int | None = None
    """Number of trainings that label the row correctly; None where there is one training."""


@dataclass(frozen=True)
class CaseGroups:
    """The test rows, grouped by which model labels them correctly.

    Where there are several trainings, corrected rows that most trainings label correctly come
    first, and so do the others that fewest label correctly. Rows with the same number are in the
    order given here.
    """

    both_right: int
    corrected: int
    still_wrong: int
    newly_broken: int
    shown_corrected: tuple[Case, ...]
    shown_still_wrong: tuple[Case, ...]
    shown_newly_broken: tuple[Case, ...]
    rows_corrected: tuple[CaseRow, ...]
    """All corrected rows, the largest margin first."""
    rows_still_wrong: tuple[CaseRow, ...]
    """All rows that both models label incorrectly, the smallest margin first."""
    rows_newly_broken: tuple[CaseRow, ...]
    """All rows that only the tuned model labels incorrectly, the smallest margin first."""


@dataclass(frozen=True)
class PartTime:
    """Seconds of one part of a stage over all attempts."""

    name: str
    kind: TimingKind
    epoch: int | None
    split: Split | None
    duration_s: float | None
    """None where a clock that was set made it unusable (runs before format 4)."""


@dataclass(frozen=True)
class StageTime:
    """Seconds of one stage over all attempts, and of its parts.

    Time in which several trainings were in the stage side by side counts once. Stages may overlap
    then, as one training is scored while another one is at work.
    """

    stage: str
    duration_s: float | None
    """None where a clock that was set made it unusable (runs before format 4)."""
    parts: dict[str, float]
    """Name of the part -> seconds, where they are known."""
    examples_per_s: float | None
    """Of all trainings together."""
    timed_parts: tuple[PartTime, ...] = ()
    """The same parts with their kind, epoch and split."""
    at_once: int = 1
    """Most trainings that were in this stage at the same time."""


@dataclass(frozen=True)
class GpuUse:
    """Use of one GPU over all attempts."""

    name: str
    uuid: str | None
    driver_version: str | None
    total_memory_bytes: int
    mean_load: float | None
    mean_training_load: float | None
    """Mean over the samples of the train stage."""
    max_load: float | None
    max_memory_used_bytes: int | None
    energy_j: float | None
    mean_power_w: float | None
    max_temperature_c: float | None
    attempts: tuple[int, ...] = ()
    """Attempts in which the GPU was sampled."""
    energy_s: float | None = None
    """Seconds of the job that the energy covers; None in runs before format 4."""
    attempts_s: float | None = None
    """Seconds of the attempts in which the GPU was in use."""
    host: str = ""
    """See `GpuInfo.host`."""
    mean_scoring_load: float | None = None
    """Mean over the samples of the stages baseline and evaluate."""


@dataclass(frozen=True)
class Imbalance:
    """The mean loads of several GPUs in training."""

    busiest: int
    """Position of the GPU with the highest load."""
    idlest: int
    """Position of the GPU with the lowest load."""
    difference: float
    """Its load below that of the busiest (0 to 1)."""


@dataclass(frozen=True)
class ResourceUse:
    """Use of the machine over all attempts."""

    samples: int
    gpus: tuple[GpuUse, ...]
    peak_allocated_bytes: int | None
    peak_reserved_bytes: int | None
    mean_cpu_load: float | None
    max_ram_used_bytes: int | None
    min_disk_free_bytes: int | None
    unread: tuple[str, ...] = ()
    """Sources of figures that failed or did not answer, each with the reason."""
    interval_s: float | None = None
    """Median time between two samples; the configuration may have changed since they were taken."""
    imbalance: Imbalance | None = None
    """None where fewer than two GPUs were measured in training."""
    total_energy_j: float | None = None
    """Energy of all GPUs; None unless it was measured for each, or where not known."""


@dataclass(frozen=True)
class Cost:
    """Cost of the time of all attempts."""

    amount: float
    currency: str
    price_per_hour: float
    """The average where attempts ran at different prices."""
    source: str
    """Where the price comes from, in words."""


@dataclass(frozen=True)
class Emissions:
    """Emissions of the energy that all GPUs used; that of the rest of the machine is not counted,
    as it is not measured."""

    co2eq_g: float
    """Grams of CO2 equivalents."""
    carbon_g_per_kwh: float
    """Carbon intensity of the grid, as configured."""
    energy_j: float


@dataclass(frozen=True)
class Finding:
    """Something that a reader of the outcome should know, for people and for programs."""

    code: str
    """Stable name of the kind of finding; "" in outcomes of record format 2."""
    figures: dict[str, int | float | str]
    """Main figures of the text, by name."""
    text: str
    severity: Severity | None = None
    """How much a warning weighs: it speaks against the result, limits it, or is worth knowing. None
    for findings that are no warnings, and in older outcomes."""


@dataclass(frozen=True)
class Gates:
    """Whether the outcome meets --min-accuracy and --min-gain."""

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
    """Expected intervals on the whole test split; None where all of it was scored."""
    label_bias: LabelBias
    slices: tuple[Slice, ...]
    """Significant changes first, then the others by the size of their change."""
    controls: tuple[Control, ...]
    """Majority class, then the controls that the configuration asks for."""
    base_validation: SplitScore | None
    """Score of the base model on the validation rows; None where it was not scored there."""
    epochs: tuple[EpochResult, ...]
    selection: Selection
    epoch_comparisons: tuple[EpochComparison, ...]
    """The selected epoch compared with each other one on the validation rows."""
    cases: CaseGroups
    total_s: float
    """Time of all attempts, each up to the last stage that did work. Writing the report is not part
    of it, so that writing it again changes nothing."""
    attempts: int
    """Attempts that did some of the work."""
    stages: tuple[StageTime, ...]
    training_examples_per_s: float
    resources: ResourceUse
    cost: Cost | None
    """None where no price was given."""
    gates: Gates
    warnings: tuple[Finding, ...] = ()
    """What a reader should know before trusting the figures, the most severe first."""
    cut_short: tuple[int, ...] = ()
    """Attempts that ended without recording their time, as after a kill. Each counts up to the last
    moment that it recorded, so total time and cost are lower bounds."""
    format_version: int = FORMAT_VERSION
    test_premises: PremiseGroups | None = None
    """How the test rows share premises; None where not known."""
    validation_intervals: tuple[ValidationInterval, ...] = ()
    """Of each epoch; empty where not known."""
    validation_loss_change: LossChange | None = None
    """None where the last epoch has the lowest validation loss, or where not known."""
    annotators: Annotators | None = None
    """None where the source does not tell the annotators' own labels, or where not known."""
    trials: Trials | None = None
    """What several trainings say together; None where there is one. All other figures are of the
    base model and of the training whose adapter is kept."""
    transfer: tuple[TransferResult, ...] = ()
    """The further test sets, in the order of the configuration."""
    search: Search | None = None
    """The search for settings; None where there was none. All other figures are of trainings after
    it."""
    forgetting: Forgetting | None = None
    """Loss on general text before and after tuning; None where it was not measured."""
    tasks: tuple[TaskChange, ...] = ()
    """Both models in tasks of lm-evaluation-harness; empty where none were asked for."""
    outside_stages_s: float | None = None
    """Time of the job in none of its stages; None where stages do not overlap, so that it is what
    their times leave."""
    tracking: tuple[TrackerState, ...] = ()
    """The trackers that the job was to tell of the run, as they were when the report was written;
    empty where there were none."""
    emissions: Emissions | None = None
    """None where no carbon intensity was given, or where the energy was not measured."""
