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

FORMAT_VERSION = 1

T = TypeVar("T")
Split = Literal["train", "validation", "test"]
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

    way: Literal["graph", "plain"]
    """graph: rows packed end to end, a training step captured as CUDA graphs; plain: the
    libraries' own layers, one operation after the other."""
    reason: str
    """Why this way, in words."""
    base_weights: Literal["dequantized", "as loaded"]
    """dequantized: the 4-bit weights' values kept in the compute dtype as well."""
    micro_batch_size: int
    """Rows held in memory at once while training."""
    refused: tuple[str, ...]
    """Faster ways that were tried first, each with why it did not serve."""
    logits_difference: float | None
    """Norm of the difference to the plain way's logits over their norm, on some rows at the
    start; None for the plain way."""
    token_counts: tuple[int, ...]
    """Sizes of pack in tokens that training was captured for; empty for the plain way."""
    warm_up_s: float
    """Time it took to prepare, scoring and training together; no part of any epoch."""


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
    """Seconds since 1970."""
    model_dir: str
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
class Metrics:
    """One model on the test split."""

    rows: int
    correct: int
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    macro_f1: float
    loss: float
    label_mass: float | None
    """Causal head: mean share of the vocabulary's probability on the label tokens."""
    confusion: tuple[tuple[int, ...], ...]
    """confusion[gold][predicted] = rows."""
    classes: tuple[ClassMetrics, ...]


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
    parameters: ParameterCounts
    base: Metrics
    tuned: Metrics
    gain: float
    """Tuned minus base test accuracy (-1 to 1)."""
    gain_interval: Interval
    mcnemar_p: float
    """Exact two-sided McNemar test on the test rows."""
    base_validation: SplitScore | None
    """The base model on validation rows, where it was scored there."""
    epochs: tuple[EpochResult, ...]
    selection: Selection
    cases: CaseGroups
    total_s: float
    attempts: int
    stages: tuple[StageTime, ...]
    training_examples_per_s: float
    resources: ResourceUse
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
