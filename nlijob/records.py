"""Every record that a run writes to disk: the border between parent, GPU side and report.

All are plain frozen dataclasses. `to_json`/`from_json` go to and from JSON; a figure that was not
measured is None, never 0. Units stand in names. Change FORMAT_VERSION when a meaning changes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from nlijob.config import JobConfig
from nlijob.typed import build

FORMAT_VERSION = 2

SIGNIFICANT = 0.05
"""p-values below it count as a difference."""

T = TypeVar("T")
Split = Literal["train", "validation", "test"]
TextName = Literal["premise", "hypothesis"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


# ---------------------------------------------------------------- the run


@dataclass(frozen=True)
class RunRecord:
    """config.json: what was asked for."""

    run_id: str
    recipe: str
    config: JobConfig
    command: tuple[str, ...]
    created_at: str
    nlijob_version: str
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class GpuInfo:
    """One GPU as torch and the driver see it."""

    name: str
    uuid: str | None
    compute_capability: str
    total_memory_bytes: int
    driver_version: str | None


@dataclass(frozen=True)
class Environment:
    """environment.json: where the GPU side ran."""

    device: Literal["cpu", "cuda"]
    gpus: tuple[GpuInfo, ...]
    """Empty on a CPU."""
    platform: str
    python_version: str
    packages: dict[str, str]
    """Package name -> version."""
    cuda_version: str | None
    cpu_name: str
    cpu_count: int
    ram_bytes: int
    compute_dtype: str
    """What "auto" came to."""
    attention: str
    """Attention implementation in use."""


@dataclass(frozen=True)
class Machine:
    """A line of machines.jsonl: what an attempt computed on, which may be another each time."""

    attempt: int
    gpus: tuple[GpuInfo, ...]
    """Empty on a CPU."""


# ---------------------------------------------------------------- subset


@dataclass(frozen=True)
class Example:
    """A line of subset/<split>.jsonl."""

    index: int
    """Row number in the source split."""
    premise: str
    hypothesis: str
    label: int


@dataclass(frozen=True)
class SplitManifest:
    """What was taken of one split."""

    split: Split
    source_rows: int
    rule: str
    """In words, such as "every 550th row"."""
    selected: int
    """Rows the rule took, before unlabelled ones were dropped."""
    unlabelled_dropped: int
    rows: int
    class_counts: tuple[int, ...]
    """Rows of label 0, 1, 2, ..."""
    rows_sha256: str
    indices: tuple[int, ...]
    """Source row numbers of the rows kept, in order."""


@dataclass(frozen=True)
class Manifest:
    """subset/manifest.json."""

    dataset: str
    revision: str | None
    config_name: str | None
    label_names: tuple[str, ...]
    splits: dict[str, SplitManifest]
    shared_premises: dict[str, int]
    """Such as "train+test" -> premises that stand in both."""
    warnings: tuple[str, ...]


# ---------------------------------------------------------------- scoring


@dataclass(frozen=True)
class Prediction:
    """A line of predictions.jsonl: one row as one model labelled it."""

    split: Split
    index: int
    label: int
    predicted: int
    probabilities: tuple[float, ...]
    """Over the labels, summing to 1."""
    label_mass: float | None
    """Causal head: share of the whole vocabulary's probability on the label tokens."""
    loss: float
    """Cross-entropy in nats at the label position."""
    tokens: int
    """Length of the model input."""


def of_split(predictions: Iterable[Prediction], split: Split) -> list[Prediction]:
    """The predictions on one split's rows, in their order."""
    return [prediction for prediction in predictions if prediction.split == split]


@dataclass(frozen=True)
class SplitScore:
    """One model on one split."""

    split: Split
    rows: int
    correct: int
    loss: float
    """Mean cross-entropy in nats."""
    duration_s: float

    @property
    def accuracy(self) -> float:
        """Share of rows labelled right."""
        return self.correct / self.rows

    @property
    def examples_per_s(self) -> float:
        """Rows a second, forward passes only."""
        return self.rows / self.duration_s


@dataclass(frozen=True)
class Memory:
    """Torch's own count of GPU memory; None on a CPU."""

    peak_allocated_bytes: int | None
    peak_reserved_bytes: int | None


@dataclass(frozen=True)
class ScoreResult:
    """baseline/result.json and evaluate/result.json."""

    model: Literal["base", "tuned"]
    epoch: int | None
    """Epoch of the checkpoint scored; None for the base model."""
    scores: dict[str, SplitScore]
    memory: Memory


@dataclass(frozen=True)
class Generation:
    """A line of evaluate/generations.jsonl: what both models wrote freely for one test row."""

    index: int
    prompt: str
    base_text: str
    tuned_text: str


@dataclass(frozen=True)
class OccludedWord:
    """What becomes of both models' answers when one word is left out."""

    text: TextName
    start: int
    """Characters from the text's beginning."""
    end: int
    base: float
    """Probability of the base model's own answer: with the word minus without it (-1 to 1)."""
    tuned: float
    """The same for the tuned model and its own answer."""


@dataclass(frozen=True)
class Occlusion:
    """A line of evaluate/occlusion.jsonl: word importance in one shown test row."""

    index: int
    words: tuple[OccludedWord, ...]
    """In order, the premise's first."""
    words_not_tried: int
    """Words beyond the limit of very long rows."""


@dataclass(frozen=True)
class PromptRecord:
    """prompt.json: the exact model input."""

    template: str
    label_tokens: tuple[int, ...]
    """Causal head: token id of each label; empty for classification."""
    label_token_texts: tuple[str, ...]
    example_prompt: str
    """The first test row's, as text."""
    example_tokens: tuple[int, ...]
    longest_tokens: dict[str, int]
    """Split -> longest input."""
    mean_tokens: dict[str, float]
    max_length: int
    """What the model can take."""
    few_shot_prefix: str
    """What stands before the prompt of the few-shot control; "" without one."""


# ---------------------------------------------------------------- training


@dataclass(frozen=True)
class ParameterCounts:
    """How large the model is, counted both ways in use."""

    trainable: int
    total_logical: int
    """Every weight counted once, whatever its storage."""
    total_packed: int
    """Stored elements: a 4-bit weight counts half, as two share a byte."""
    lora_parameters: int
    head_parameters: int
    """Classification head in training; 0 for the causal head."""
    matched_modules: dict[str, int]
    """Target name -> modules it matched."""
    quantized_modules: int
    base_memory_bytes: int | None
    """Bytes of all base weights and quantisation constants in memory."""


@dataclass(frozen=True)
class Plan:
    """train/plan.json: how the GPU side computed, and why so."""

    way: Literal["graph", "packed", "plain"]
    """graph: rows packed end to end, a training step captured as CUDA graphs; packed: the same
    without graphs, on a CPU; plain: the libraries' own layers, one operation after the other."""
    reason: str
    """Why this way, in words."""
    base_weights: Literal["dequantized", "as loaded"]
    """dequantized: the 4-bit weights' values kept in the compute dtype as well."""
    micro_batch_size: int
    """Rows held in memory at once while training."""
    refused: tuple[str, ...]
    """Faster ways that were tried before, each with why it did not serve; the plain loop may step
    down in the middle of training."""
    logits_difference: float | None
    """Norm of the difference to the plain way's logits over their norm, on some rows at the
    start; None for the plain way."""
    token_counts: tuple[int, ...]
    """Sizes of pack in tokens that training was prepared for; empty for the plain way."""
    warm_up_s: float
    """Time it took to prepare, scoring and training together; no part of any epoch."""
    shared_prefix: int = 0
    """Tokens that all rows begin with, computed once for all rows of a step; 0 where they begin
    otherwise, or have too little in common."""
    activations: Literal["kept", "recomputed"] = "kept"
    """recomputed: of each layer only what enters it is kept while training, and the layer is
    computed again for its gradient, which takes less memory and more time."""
    layers: Literal["compiled", "as loaded"] = "as loaded"
    """compiled: while training, by torch's compiler; its time is in the warm-up."""


@dataclass(frozen=True)
class TrainStep:
    """A line of train/log.jsonl: one optimizer step."""

    epoch: int
    step: int
    """Counted from 1 over the whole training."""
    loss: float
    grad_norm: float | None
    """Before clipping; None where float16 overflowed and loss scaling skipped the step."""
    learning_rate: float
    examples: int
    duration_s: float


@dataclass(frozen=True)
class EpochResult:
    """train/epoch-N/result.json."""

    epoch: int
    steps: int
    examples: int
    train_loss: float
    """Mean over the epoch's rows, dropout on."""
    duration_s: float
    """Optimizer steps only."""
    validation: SplitScore
    test: SplitScore | None
    """For information; never used to select."""
    memory: Memory

    @property
    def examples_per_s(self) -> float:
        """Training rows a second."""
        return self.examples / self.duration_s


@dataclass(frozen=True)
class TrainResult:
    """train/result.json."""

    parameters: ParameterCounts
    epochs: tuple[EpochResult, ...]


@dataclass(frozen=True)
class Selection:
    """selection.json: which checkpoint, and why."""

    epoch: int
    rule: str
    validation_accuracy: float
    validation_loss: float
    candidates: int
    tied_on_accuracy: tuple[int, ...]
    """Epochs that shared the best accuracy, the selected one among them."""


# ---------------------------------------------------------------- time and hardware


@dataclass(frozen=True)
class Timing:
    """A line of timings.jsonl: how long one part of one attempt took."""

    attempt: int
    stage: str
    part: str
    """What of the stage, such as "epoch 2"; "" for the stage as a whole."""
    started_at_s: float
    """Seconds since 1970."""
    duration_s: float
    examples: int | None = None


@dataclass(frozen=True)
class GpuSample:
    """One GPU at one moment."""

    uuid: str
    load: float | None
    """0 to 1; None where the driver reports none (MIG)."""
    memory_used_bytes: int | None
    temperature_c: float | None
    power_w: float | None
    energy_j: float | None
    """The driver's running total; only differences mean anything."""


@dataclass(frozen=True)
class HardwareSample:
    """A line of hardware.jsonl."""

    attempt: int
    time_s: float
    """Seconds since 1970."""
    stage: str
    cpu_load: float
    """0 to 1 over all cores of the machine."""
    ram_used_bytes: int
    """Resident memory of the job's processes."""
    disk_free_bytes: int
    gpus: tuple[GpuSample, ...]


@dataclass(frozen=True)
class Progress:
    """A line of progress.jsonl: where the GPU side is."""

    stage: str
    part: str
    done: int
    total: int
    unit: str
    note: str = ""


# ---------------------------------------------------------------- border and markers


@dataclass(frozen=True)
class WorkerTask:
    """worker/task.json: what the parent asks of the GPU side."""

    attempt: int
    launched_at_s: float
    """When its processes were started, in seconds since 1970."""
    given_at_s: float
    """When all was there that it needs; the processes may have been ready before, or not yet."""
    model_dir: str
    model_stamp: str
    """What tells the model's files from others: a commit of the hub, or names and contents."""
    fingerprints: dict[str, str]
    """Stage -> fingerprint of what it reads; a stage complete under it is not done again."""


@dataclass(frozen=True)
class WorkerOutcome:
    """worker/outcome.json: how the GPU side ended."""

    exit_code: int
    message: str
    hint: str


@dataclass(frozen=True)
class Marker:
    """markers/<stage>.json, written last: the stage is complete."""

    stage: str
    fingerprint: str
    finished_at: str
    sizes: dict[str, int]
    """File below the run -> bytes; a file missing or of another size undoes the marker."""
    format_version: int = FORMAT_VERSION


# ---------------------------------------------------------------- the outcome


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
    def is_significant(self) -> bool:
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
    def is_significant(self) -> bool:
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
    def is_significant(self) -> bool:
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
class StageTime:
    """Seconds of one stage over all attempts, and of its parts."""

    stage: str
    duration_s: float
    parts: dict[str, float]
    examples_per_s: float | None


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
class Gates:
    """Outcome of --min-accuracy and --min-gain."""

    passed: bool
    failures: tuple[str, ...]


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
    warnings: tuple[str, ...] = field(default=())
    format_version: int = FORMAT_VERSION


# ---------------------------------------------------------------- JSON


def to_json(record: Any) -> Any:
    """A record as plain JSON values. Raises ValueError on a number that JSON cannot carry."""
    value = dataclasses.asdict(record)
    _refuse_nonfinite(value, type(record).__name__)
    return value


def from_json(cls: type[T], value: object) -> T:
    """A record from plain JSON values. Raises ValueError that names every key that is wrong."""
    faults: list[str] = []
    record = build(cls, value, "", faults)
    if faults or record is None:
        raise ValueError(f"not a {cls.__name__}: " + "; ".join(faults))
    return record


def read(cls: type[T], path: Path) -> T:
    """The record in a JSON file."""
    return from_json(cls, json.loads(path.read_text(encoding="utf-8")))


def read_lines(cls: type[T], path: Path) -> Iterator[T]:
    """The records of a JSON Lines file; a last line cut short by a crash is passed over."""
    with path.open("rb") as lines:  # a line may be cut within a character
        for line in lines:
            if line.endswith(b"\n"):
                yield from_json(cls, json.loads(line))


def dump(record: Any) -> str:
    """A record as indented JSON text."""
    return json.dumps(to_json(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def dump_lines(records: Iterable[Any]) -> str:
    """Records as JSON Lines."""
    return "".join(dump_line(record) for record in records)


def dump_line(record: Any) -> str:
    """One record as a JSON line."""
    return json.dumps(to_json(record), ensure_ascii=False, allow_nan=False) + "\n"


def _refuse_nonfinite(value: Any, path: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path} is {value}; a figure that was not measured is None")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_nonfinite(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _refuse_nonfinite(item, f"{path}[{i}]")
