"""What the job writes while it works: the border between the parent and the GPU side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from nlijob.config import JobConfig

FORMAT_VERSION = 3
"""Rises whenever the meaning of a record changes; `older` reads what earlier versions wrote."""

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


TimingKind = Literal["stage", "optimizer steps", "scoring", "checkpoint", "other"]
"""What a time was spent on; "stage" is the stage as a whole."""


@dataclass(frozen=True)
class Timing:
    """A line of timings.jsonl: how long one part of one attempt took."""

    attempt: int
    stage: str
    part: str
    """The part's name for display, such as "epoch 2"; "" for the stage as a whole."""
    started_at_s: float
    """Seconds since 1970."""
    duration_s: float
    examples: int | None = None
    kind: TimingKind = "stage"
    epoch: int | None = None
    split: Split | None = None


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
