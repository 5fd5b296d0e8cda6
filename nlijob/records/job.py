"""What the job writes while it runs: the border between the parent and the GPU side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nlijob.config import JobConfig

FORMAT_VERSION = 4
"""Rises whenever the meaning of a record changes; `older` reads what earlier versions wrote."""

Split = Literal["train", "validation", "test"]
TextName = Literal["premise", "hypothesis"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


# ---------------------------------------------------------------- the run


@dataclass(frozen=True)
class RunRecord:
    """config.json: the configuration of the run and the command that started it."""

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
    host: str = ""
    """Name of its host where the job had several; "" where it had one, or where not known."""


@dataclass(frozen=True)
class HeadOrigin:
    """Where the weights of the model's head come from."""

    modules: tuple[str, ...]
    """Modules that are kept out of quantisation as the head."""
    new: tuple[str, ...]
    """Those of them that the checkpoint lacks, or has for other labels: drawn from the seed."""
    reason: str
    """Why they are new, or whose head it is, in words; "" for a head that is not trained."""
    unused: tuple[str, ...]
    """Modules of the checkpoint that the task does not use, such as another head."""


@dataclass(frozen=True)
class Environment:
    """environment.json: where the GPU side ran."""

    device: Literal["cpu", "cuda"]
    gpus: tuple[GpuInfo, ...]
    """All that were in use, by the rank of their process; empty on a CPU."""
    platform: str
    python_version: str
    packages: dict[str, str]
    """Package name -> version."""
    cuda_version: str | None
    cpu_name: str
    cpu_count: int
    ram_bytes: int
    compute_dtype: str
    """The data type in use, also where the configuration says "auto"."""
    attention: str
    """Name of the attention implementation in use."""
    head: HeadOrigin | None = None
    """Where the head's weights come from; None if not known."""
    double_quantization: bool | None = None
    """Whether the constants of 4-bit weights are quantised too; None without 4-bit weights, or if
    not known."""
    unquantized_modules: tuple[str, ...] | None = None
    """Ends of the names of the linear modules that are not in 4 bits where others are; None if not
    known."""


@dataclass(frozen=True)
class Machine:
    """A line of machines.jsonl: the GPUs of one attempt; each attempt may use other ones."""

    attempt: int
    gpus: tuple[GpuInfo, ...]
    """All that were in use, by the rank of their process; empty on a CPU."""


# ---------------------------------------------------------------- subset


@dataclass(frozen=True)
class Example:
    """A line of subset/<split>.jsonl: one row of the data set."""

    index: int
    """Row number in the source split."""
    premise: str
    hypothesis: str
    label: int
    columns: dict[str, str] = field(default_factory=dict)
    """Test rows: further columns of the source that could be categories, with their values; empty
    where there are none or where this is not known."""
    votes: tuple[int, ...] = ()
    """Test rows: how many annotators gave label 0, 1, 2, ...; empty where this is not known."""


@dataclass(frozen=True)
class Repetition:
    """How often premises and whole rows repeat within a split. White space does not count."""

    premises: int
    """Different premises."""
    repeated_rows: int
    """Rows whose premise and hypothesis stand in an earlier row."""
    contradictory_rows: int
    """Rows whose premise and hypothesis also stand in the split with another label."""


@dataclass(frozen=True)
class SplitOverlap:
    """The rows of one split that also stand in another one. White space does not count."""

    split: Split
    other: Split
    rows: int
    """Rows of `split`."""
    rows_with_premise: int
    """Rows whose premise stands in `other`."""
    whole_rows: int
    """Rows whose premise and hypothesis stand together in `other`, with any label."""
    other_label: int
    """Of these, rows that have no such label in `other`."""
    is_same: bool
    """Both splits hold the same rows."""


@dataclass(frozen=True)
class SplitManifest:
    """The rows selected from one split."""

    split: Split
    source_rows: int
    rule: str
    """The selection rule in words, such as "every 550th row"."""
    selected: int
    """Rows that the rule selects, including unlabelled ones."""
    unlabelled_dropped: int
    rows: int
    class_counts: tuple[int, ...]
    """Number of rows with label 0, 1, 2, ..."""
    rows_sha256: str
    """Of a line for each row: a JSON list of premise, hypothesis and label. The same rows in the
    same order have the same hash, whatever else their files hold."""
    indices: tuple[int, ...]
    """Row numbers of the kept rows in the source split, in order."""
    labels_read: str = ""
    """How integer labels were read, in words; "" where this is not known."""
    blank_lines: int | None = None
    """Lines of the source file without content, which were skipped; None where not known."""
    fields_over_lines: int | None = None
    """CSV fields with line breaks in them; None where not known."""
    first_fields_over_lines: tuple[int, ...] = ()
    """Lines at which the first few rows with such fields begin."""
    repetition: Repetition | None = None
    """None where not known."""
    further_columns: tuple[str, ...] = ()
    """Columns beside texts and label that the rows keep; empty where there are none or where this
    is not known."""
    annotator_columns: tuple[str, ...] = ()
    """Columns from which the labels of single annotators were read; empty where there are none."""
    origin: str = ""
    """How the rows were found, in words, such as "read from dev"; "" where they are those of the
    split's own name, or where this is not known."""
    files: tuple[str, ...] = ()
    """Files that were read, relative to the data set's folder; empty where not known."""
    columns: tuple[str, ...] = ()
    """Columns that were read as premise, hypothesis and label; empty where not known."""
    file_sha256: str = ""
    """SHA-256 of subset/<split>.jsonl, as `sha256sum` gives it; "" where not known."""


@dataclass(frozen=True)
class Manifest:
    """subset/manifest.json: where the rows come from and which ones were selected."""

    dataset: str
    revision: str | None
    config_name: str | None
    label_names: tuple[str, ...]
    splits: dict[str, SplitManifest]
    shared_premises: dict[str, int]
    """Pair of splits, such as "train+test" -> number of premises that occur in both."""
    warnings: tuple[str, ...]
    overlaps: tuple[SplitOverlap, ...] = ()
    """Rows that stand in two splits; empty where this is not known."""


# ---------------------------------------------------------------- scoring


ROUNDING = 1e-4
"""How far probabilities may be from summing to 1; float32 rounds by 1e-7 each."""


@dataclass(frozen=True)
class Prediction:
    """A line of predictions.jsonl: one model's answer to one row."""

    split: Split
    index: int
    label: int
    predicted: int
    probabilities: tuple[float, ...]
    """Probability of each label; they sum to 1."""
    label_mass: float | None
    """Causal head: probability of all label tokens together, within the whole vocabulary."""
    loss: float
    """Cross-entropy in nats at the label position."""
    tokens: int
    """Length of the model input in tokens."""

    def faults(self) -> Iterator[str]:
        """What cannot be, whatever the model: labels and probabilities that do not fit together.

        Of labels with the same probability, each may be the predicted one, as the model's logits
        may differ by less than the rounding of the probabilities.
        """
        labels = range(len(self.probabilities))
        if self.label not in labels or self.predicted not in labels:
            yield "label or predicted is not the number of one of the probabilities"
        elif self.probabilities[self.predicted] != max(self.probabilities):
            yield "predicted is not the label of the highest probability"
        if not all(0 <= one <= 1 for one in self.probabilities):
            yield "a probability is not between 0 and 1"
        if abs(sum(self.probabilities) - 1) > ROUNDING:
            yield "the probabilities do not sum to 1"

    @property
    def is_right(self) -> bool:
        """Whether the gold label was predicted."""
        return self.predicted == self.label

    @property
    def confidence(self) -> float:
        """Probability of the predicted label."""
        return self.probabilities[self.predicted]


def of_split(predictions: Iterable[Prediction], split: Split) -> list[Prediction]:
    """The predictions for the rows of one split, in the given order."""
    return [prediction for prediction in predictions if prediction.split == split]


@dataclass(frozen=True)
class SplitScore:
    """One model's score on one split."""

    split: Split
    rows: int
    correct: int
    loss: float
    """Mean cross-entropy in nats."""
    duration_s: float

    @property
    def accuracy(self) -> float:
        """Share of the rows that are labelled correctly (0 to 1)."""
        return self.correct / self.rows

    @property
    def examples_per_s(self) -> float:
        """Rows per second, forward passes only."""
        return self.rows / self.duration_s


@dataclass(frozen=True)
class Memory:
    """Peak GPU memory as counted by torch; None on a CPU."""

    peak_allocated_bytes: int | None
    peak_reserved_bytes: int | None


@dataclass(frozen=True)
class ScoreResult:
    """baseline/result.json and evaluate/result.json: the scores of one model."""

    model: Literal["base", "tuned"]
    epoch: int | None
    """Epoch of the scored checkpoint; None for the base model."""
    scores: dict[str, SplitScore]
    memory: Memory


@dataclass(frozen=True)
class Generation:
    """A line of evaluate/generations.jsonl: free text of both models for one test row."""

    index: int
    prompt: str
    base_text: str
    tuned_text: str


@dataclass(frozen=True)
class OccludedWord:
    """How both models' answers change when one word is left out."""

    text: TextName
    start: int
    """Position in the text, in characters."""
    end: int
    base: float
    """Probability of the base model's own answer, with the word minus without it (-1 to 1)."""
    tuned: float
    """Probability of the tuned model's own answer, with the word minus without it (-1 to 1)."""


@dataclass(frozen=True)
class Occlusion:
    """A line of evaluate/occlusion.jsonl: word importance in one shown test row."""

    index: int
    words: tuple[OccludedWord, ...]
    """Words of the premise, then of the hypothesis, in the order of the text."""
    words_not_tried: int
    """Words of very long rows that were not measured."""


@dataclass(frozen=True)
class PromptRecord:
    """prompt.json: how rows become model input."""

    template: str
    """The whole text with {premise} and {hypothesis}: answers and the model's chat template are
    filled in."""
    label_tokens: tuple[int, ...]
    """Causal head: token id of each label; empty for a classification head."""
    label_token_texts: tuple[str, ...]
    example_prompt: str
    """Model input of the first test row, decoded to text."""
    example_tokens: tuple[int, ...]
    longest_tokens: dict[str, int]
    """Split -> length of its longest input in tokens."""
    mean_tokens: dict[str, float]
    max_length: int
    """Longest input that the model accepts, in tokens."""
    few_shot_prefix: str
    """Text before the prompt in the few-shot control; in a conversation, all before the last
    message. "" without that control."""
    verbalizers: tuple[str, ...] = ()
    """The answer of each label, as it follows the template's text; empty for a classification head,
    or where not known."""
    answer_style: str = ""
    """What the answers are: "recipe" if the configuration gives them, else the first of "digits",
    "letters" and "names" that the tokenizer tells apart; "" where not known."""
    answer_start: tuple[int, ...] = ()
    """Tokens that all answers begin with. They are the end of the model input, and the next token
    tells the label."""
    answer_start_text: str = ""
    """The text of these tokens."""
    tokens_before: tuple[int, ...] | None = None
    """Model input other than what the tokenizer makes of the text by itself: these special tokens,
    those of the text alone, and `answer_start`. None if it is what the tokenizer makes."""
    is_chat: bool | None = None
    """Whether the template is a conversation in the model's chat template; None where not known."""
    notes: tuple[str, ...] = ()
    """What to know about the prompt, a sentence each: special tokens, switches, a date."""
    example_token_texts: tuple[str, ...] = ()
    """The text of each of `example_tokens`; empty where not known."""
    dropped: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Split -> row numbers of rows that are longer than `max_length` and were left out."""

    def kept(self, split: Split, examples: Iterable[Example]) -> list[Example]:
        """Return the rows of a split's subset that are model input."""
        dropped = set(self.dropped.get(split, ()))
        return [example for example in examples if example.index not in dropped]


# ---------------------------------------------------------------- training


@dataclass(frozen=True)
class ParameterCounts:
    """Size of the model, counted in both usual ways."""

    trainable: int
    total_logical: int
    """Number of weights, independent of how they are stored."""
    total_packed: int
    """Stored elements: a 4-bit weight counts as half, because two share a byte."""
    lora_parameters: int
    head_parameters: int
    """Parameters of the trained classification head; 0 for the causal head."""
    matched_modules: dict[str, int]
    """Target name -> number of modules that it matches."""
    quantized_modules: int
    base_memory_bytes: int | None
    """Memory of all base weights and quantisation constants."""


@dataclass(frozen=True)
class Plan:
    """train/plan.json: the execution mode of the GPU side, and the reason for it.

    Each epoch has its own; the last one's counts, as memory may run out during training.
    """

    way: Literal["graph", "packed", "plain", "sharded"]
    """Execution mode. graph: rows are packed end to end and a training step is captured as CUDA
    graphs; packed: packed rows without graphs, on a CPU; plain: the libraries' own layers, one
    operation at a time; sharded: plain, with the base weights divided between several GPUs."""
    reason: str
    """Why this mode was selected, in words."""
    base_weights: Literal["dequantized", "as loaded"]
    """dequantized: the values of 4-bit weights are also kept in the compute dtype."""
    micro_batch_size: int
    """Rows per forward and backward pass in training."""
    refused: tuple[str, ...]
    """Faster modes that were tried first, each with the reason why it was not used. The plain loop
    can also reduce its micro-batch during training."""
    logits_difference: float | None
    """Norm of the difference to the plain loop's logits, divided by their norm, on some rows before
    training; None in plain mode."""
    token_counts: tuple[int, ...]
    """Pack sizes in tokens that training is prepared for; empty in plain mode."""
    warm_up_s: float
    """Time to prepare scoring and training; not part of any epoch."""
    shared_prefix: int = 0
    """Length in tokens of the prefix that all rows share and that is computed once per step; 0
    where there is none or it is too short to save time."""
    activations: Literal["kept", "recomputed"] = "kept"
    """recomputed: training keeps only the input of each layer and recomputes its activations in the
    backward pass (gradient checkpointing), which takes less memory and more time."""
    layers: Literal["compiled", "as loaded"] = "as loaded"
    """compiled: training uses layers compiled by torch; compiling counts as warm-up."""
    processes: int = 1
    """Processes of the GPU side, each with a GPU of its own."""
    share: Literal["trials", "steps", "none"] = "none"
    """How the processes train: each takes one training at a time, or all share the rows of each
    optimizer step, or one trains and the others score alone."""
    share_reason: str = ""
    """Why they train in this way, in words; "" for a single process."""
    processes_reason: str = ""
    """Why there are so many processes, in words; "" where one GPU is visible, or if not known."""


@dataclass(frozen=True)
class TrainStep:
    """A line of train/log.jsonl: one optimizer step."""

    epoch: int
    step: int
    """Number of the step in the whole training, from 1."""
    loss: float
    grad_norm: float | None
    """Norm before clipping; None where float16 overflowed and loss scaling skipped the step."""
    learning_rate: float
    examples: int
    duration_s: float


@dataclass(frozen=True)
class EpochResult:
    """train/epoch-N/result.json: the figures of one epoch."""

    epoch: int
    steps: int
    examples: int
    train_loss: float
    """Mean over the rows of the epoch, with dropout."""
    duration_s: float
    """Time of the optimizer steps alone."""
    validation: SplitScore
    test: SplitScore | None
    """Scored for information only; the selection does not use it."""
    memory: Memory

    @property
    def examples_per_s(self) -> float:
        """Training rows per second."""
        return self.examples / self.duration_s


@dataclass(frozen=True)
class TrainResult:
    """train/result.json: the whole training."""

    parameters: ParameterCounts
    epochs: tuple[EpochResult, ...]


@dataclass(frozen=True)
class Selection:
    """selection.json: which checkpoint was selected, and why."""

    epoch: int
    rule: str
    validation_accuracy: float
    validation_loss: float
    candidates: int
    tied_on_accuracy: tuple[int, ...]
    """Epochs with the best accuracy, including the selected one."""


@dataclass(frozen=True)
class Choice:
    """choice.json, where there are several trainings: whose adapter is kept, and why."""

    trial: str
    """Name of the training."""
    rule: str
    epoch: int
    validation_accuracy: float
    candidates: int
    """Number of trainings."""


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
    """Seconds since 1970, for the date alone: this clock may be set while the job runs."""
    duration_s: float
    examples: int | None = None
    kind: TimingKind = "stage"
    epoch: int | None = None
    split: Split | None = None
    started_monotonic_s: float | None = None
    """Start on the machine's monotonic clock, which nobody sets and which both sides share. Only
    comparable within one attempt. None in runs before format 4."""
    trial: str = ""
    """Name of the training that the time was spent on; "" where there is one, or for all."""


@dataclass(frozen=True)
class GpuSample:
    """One GPU at one moment."""

    uuid: str
    load: float | None
    """Share of the time that the GPU was busy (0 to 1); None where not reported (MIG)."""
    memory_used_bytes: int | None
    temperature_c: float | None
    power_w: float | None
    energy_j: float | None
    """Running total of the driver; only differences are meaningful."""


@dataclass(frozen=True)
class HardwareSample:
    """A line of hardware.jsonl: the state of the machine at one moment."""

    attempt: int
    time_s: float
    """Seconds since 1970, for the date alone: this clock may be set while the job runs."""
    stage: str
    cpu_load: float | None
    """Load of all cores of the machine together since the sample before (0 to 1)."""
    ram_used_bytes: int | None
    """Resident memory of the job's processes."""
    disk_free_bytes: int | None
    gpus: tuple[GpuSample, ...]
    monotonic_s: float | None = None
    """The moment on the machine's monotonic clock; only comparable within one attempt. None in runs
    before format 4."""
    unread: tuple[str, ...] = ()
    """Sources of figures that failed or did not answer, each with the reason; told once an
    attempt."""


@dataclass(frozen=True)
class Progress:
    """A line of progress.jsonl: how far the GPU side is."""

    stage: str
    part: str
    done: int
    total: int
    """0 where it is not known."""
    unit: str
    note: str = ""
    process: int = 0
    """Number of the process that reports it. Several do where trainings are side by side."""


# ---------------------------------------------------------------- border and markers


@dataclass(frozen=True)
class Inputs:
    """What the outcome of a stage depends on."""

    settings: dict[str, Any]
    """Settings that it reads, such as "train.seed" -> 42, with values as JSON has them."""
    follows: dict[str, str]
    """Stages whose outcome it reads -> their fingerprints."""
    stamp: str
    """Identity of the files outside the run that it reads; "" where there are none."""

    @property
    def fingerprint(self) -> str:
        """A hash of the inputs and of the record format."""
        text = json.dumps([FORMAT_VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class FileStamp:
    """Size and hash of a file."""

    size_bytes: int
    sha256: str | None
    """In hexadecimal digits; None in markers of formats 2 and 3, which list sizes only."""


@dataclass(frozen=True)
class WorkerTask:
    """worker/task.json: the parent's task for the GPU side."""

    attempt: int
    launched_at_s: float
    """When the processes of the GPU side were started, in seconds since 1970, for the date."""
    given_at_s: float
    """When the task was written; the processes may become ready before or after."""
    model_dir: str
    model_stamp: str
    """Identity of the model's files: a commit on the hub, or file names and hashes."""
    inputs: dict[str, Inputs]
    """Stage -> its inputs; a stage that is complete with the same inputs is skipped."""
    launched_monotonic_s: float | None = None
    """When the processes were started, on the machine's monotonic clock."""
    given_monotonic_s: float | None = None
    """When the task was written, on the same clock."""
    stamps: dict[str, str] = field(default_factory=dict)
    """What identifies the files outside the run; see `nlijob.stages.Stage.stamp`."""
    processes_reason: str = ""
    """See `Plan.processes_reason`."""


@dataclass(frozen=True)
class ProcessUse:
    """What a process has taken of the machine since it began."""

    user_s: float
    """CPU time in its own code, in all its threads."""
    system_s: float
    """CPU time in the system for it."""
    page_faults: int
    """Pages of memory that were set up for it, without reading a disk."""


@dataclass(frozen=True)
class WorkerStart:
    """worker/start.json: how the start of the GPU side's first process went."""

    began_monotonic_s: float
    """When its program began, after `accelerate launch` had been imported, and torch with it. On
    the machine's monotonic clock."""
    imported_monotonic_s: float
    """When all libraries were imported, on the same clock."""
    context_s: float | None = None
    """Seconds that it took to create the GPU's context meanwhile; None if it was not created."""
    began_use: ProcessUse | None = None
    """What the process had taken when its program began; None in older runs."""
    imported_use: ProcessUse | None = None
    """The same when all libraries were imported."""


@dataclass(frozen=True)
class WorkerOutcome:
    """worker/outcome.json: how the GPU side ended; outcome-N.json: how its process N ended."""

    exit_code: int
    message: str
    hint: str
    lost_another: bool = False
    """Whether it ended for want of another process, which had ended or could not be reached."""


@dataclass(frozen=True)
class WorkerFailure:
    """worker/failure.json: the process of a GPU side of several that was the first to fail."""

    rank: int
    """Its number, from 0."""
    processes: int
    """Number of processes of the GPU side."""
    local_rank: int
    """Its number on its host, which is also that of its GPU."""
    host: str
    """Name of its host."""
    pid: int
    """Its number in the host's table of processes."""
    status: int | None
    """Its exit status, or -N where signal N ended it; none: it has not ended."""
    gpu: str = ""
    """Name of its GPU; "" where it is not known, and on a CPU."""
    silent_s: float | None = None
    """Time for which it had shown no sign of life when it was found so; none: it ended."""
    outcome: WorkerOutcome | None = None
    """What it said of its end; none where it did not."""


@dataclass(frozen=True)
class Marker:
    """markers/<stage>.json, written last: the stage, or the epoch, is complete."""

    stage: str
    fingerprint: str
    """Fingerprint of `inputs`."""
    finished_at: str
    files: dict[str, FileStamp]
    """File below the run's folder -> its stamp. A file that is missing or differs voids the
    marker."""
    to_continue: dict[str, FileStamp] = field(default_factory=dict)
    """Files that are needed only to continue from here, such as an epoch's training state. They may
    be missing, but must not differ where they are used."""
    inputs: Inputs | None = None
    """None in markers of formats 2 and 3."""
    format_version: int = FORMAT_VERSION
