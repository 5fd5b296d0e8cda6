"""What `plan` finds out without doing the job: its look at the model, and the plan itself."""

from __future__ import annotations

from dataclasses import dataclass

from nlijob.config import JobConfig
from nlijob.records.job import Split


@dataclass(frozen=True)
class TokenCounts:
    """How long the prompts of a split are, with the answer not counted."""

    rows: int
    """Rows of the split."""
    counted: int
    """Rows that were tokenised: all, or evenly spaced ones."""
    mean: float
    """Mean length of these, in tokens."""
    longest: int
    """Longest of these, in tokens."""
    too_long: int = 0
    """How many of those counted are longer than the model's context, and are left out."""


@dataclass(frozen=True)
class ModelLook:
    """What model, adapter, head and prompt resolve to, read without the model's weights."""

    model_type: str
    compute_dtype: str
    compute_dtype_is_assumed: bool
    """Whether there is no GPU here to tell, so that one with bfloat16 is assumed."""
    max_length: int
    """Longest prompt in tokens."""
    target_modules: dict[str, int]
    """Name of an adapted module -> how many the model has."""
    trained_head: tuple[str, ...]
    """Modules that may be trained in full besides the adapter."""
    trainable_parameters: int
    base_parameters: int
    multiplied_weights: int
    """Weights that each token is multiplied with: those of the layers, without the head."""
    layers: int | None
    hidden_size: int | None
    weights_bytes: int
    """Memory that loading the base weights takes, in bytes."""
    dequantized_bytes: int
    """Memory of 4-bit weights in the compute dtype, which the fastest modes keep besides."""
    execution_modes: tuple[str, ...]
    """Names of the modes in the order in which the job tries them."""
    example_prompt: str
    """The first test row as the model reads it."""
    label_token_texts: tuple[str, ...]
    """The token that stands for each label; empty where labels are not tokens."""
    label_tokens: tuple[int, ...]
    tokens: dict[Split, TokenCounts]
    """Empty where the rows are not here."""
    device_name: str | None
    """The GPU, or the CPU; None where the job is planned for a GPU and there is none here."""
    device_cores: int
    """CPU cores that the job may use."""
    free_memory_bytes: int | None
    """Unused memory of that device; None where it is not here."""
    prompt_form: str = ""
    """How rows become prompts, and which answers are read, in words."""
    notes: tuple[str, ...] = ()
    """What to know about the prompt, a sentence each."""
    four_bit_bytes: int = 0
    """Memory of the base weights that are held in 4 bits, with their constants."""
    other_weights_bytes: int = 0
    """Memory of all other base weights."""
    largest_layer_bytes: int = 0
    """Memory of the largest repeated layer's base weights."""
    largest_dequantized_bytes: int = 0
    """Memory of the largest 4-bit weight in the compute dtype."""
    largest_outside_bytes: int = 0
    """Memory of the largest base weight outside of the repeated layers, such as the embedding."""
    layer_outputs: int = 0
    """Numbers that the linear modules of all repeated layers give for a token."""
    vocabulary: int = 0
    """Tokens that the model has embeddings for."""
    adapter_inputs: int = 0
    """Numbers that all modules with an adapter read for a token; 0 where not known."""
    mlp_adapter_inputs: int = 0
    """The same of those outside of attention; what several of a layer read counts once."""
    has_gated_layers: bool = False
    """Whether the model is of a family with fused layers like Llama's."""


@dataclass(frozen=True)
class PlannedFiles:
    """The files of a model or data set."""

    name: str
    source: str
    """The folder, or the revision on the hub."""
    size_bytes: int | None
    """Size of all files that the job reads; None where not known."""
    download_bytes: int | None
    """Size of those that are not here yet; None where not known."""


@dataclass(frozen=True)
class PlannedRows:
    """The rows of a split that the job takes."""

    rule: str
    """The selection rule in words, such as "every 550th row"."""
    source_rows: int | None
    """Rows in the source; None where not known."""
    rows: int | None
    """Rows that are taken; None where not known."""
    is_exact: bool
    """Whether unlabelled rows are already left out, which needs the rows themselves."""


@dataclass(frozen=True)
class PlannedSet:
    """A further test set."""

    name: str
    files: PlannedFiles
    rows: PlannedRows
    label_names: tuple[str, ...]
    """The set's own labels; empty where not known."""


@dataclass(frozen=True)
class Span:
    """A duration between two bounds."""

    low_s: float
    high_s: float


@dataclass(frozen=True)
class PlannedProcesses:
    """How many processes the GPU side has, each with a GPU of its own."""

    number: int
    visible: int
    """GPUs that the job can see; 0 on a CPU."""
    reason: str
    """Why so many, in words."""


@dataclass(frozen=True)
class PlannedTime:
    """How long the job takes, as far as measurements tell."""

    job: Span | None
    """From the command to its end, without downloads; None where nothing like it was measured."""
    training: Span | None
    """The optimizer steps alone."""
    basis: str
    """What the estimate is scaled from, or why there is none."""


@dataclass(frozen=True)
class PlannedDisk:
    """Space on a disk that the job writes to."""

    folder: str
    needed_bytes: int | None
    """Estimate; None where not known."""
    free_bytes: int | None
    purpose: str


@dataclass(frozen=True)
class MemoryTerm:
    """A part of the memory that a GPU needs."""

    name: str
    size_bytes: int


@dataclass(frozen=True)
class ModeMemory:
    """The memory that an execution mode needs on each GPU, as a sum."""

    mode: str
    """The mode in words."""
    gpus: int
    """GPUs that the weights are divided between; 1 if each has all of them."""
    terms: tuple[MemoryTerm, ...]
    total_bytes: int


@dataclass(frozen=True)
class CardFit:
    """Whether GPUs of one size can do the job."""

    card_bytes: int
    mode: str | None
    """The fastest mode that one of them has room for, or else several; None where none has."""
    gpus: int | None
    """GPUs that this takes; None where too many would be needed."""


@dataclass(frozen=True)
class PlannedMemory:
    """Memory of the device that computes the model, estimated."""

    least_bytes: int
    """In the leanest execution mode."""
    fastest_bytes: int
    """In the fastest execution mode."""
    free_bytes: int | None
    """Unused on this machine; None where the device is not here."""
    modes: tuple[ModeMemory, ...] = ()
    """Each execution mode, from the leanest to the fastest."""
    sharded: tuple[ModeMemory, ...] = ()
    """The leanest mode with the weights divided between 2, 4 and 8 GPUs; empty on a CPU."""
    cards: tuple[CardFit, ...] = ()
    """Common sizes of GPUs; empty on a CPU."""


@dataclass(frozen=True)
class Obstacle:
    """Something for which the job would end on this machine, as things are now."""

    exit_code: int
    message: str
    hint: str


@dataclass(frozen=True)
class JobPlan:
    """What the job would do: the outcome of `plan --json`."""

    recipe: str
    config: JobConfig
    run: str
    """The run's folder."""
    run_exists: bool
    """Whether it holds a run, whose complete stages would not be done again."""
    model: PlannedFiles
    dataset: PlannedFiles
    look: ModelLook
    rows: dict[Split, PlannedRows]
    steps_per_epoch: int | None
    optimizer_steps: int | None
    training_tokens: int | None
    """Tokens of all training rows in all epochs, estimated where not all rows were tokenised."""
    disk: tuple[PlannedDisk, ...]
    memory: PlannedMemory
    time: PlannedTime
    warnings: tuple[str, ...]
    """What the job would note about the rows."""
    obstacles: tuple[Obstacle, ...]
    transfer: tuple[PlannedSet, ...] = ()
    """The further test sets."""
    candidates: int = 0
    """Trainings of the search; 0 without one. The steps above are of one training of the run."""
    search_epochs: int = 0
    """Epochs of all candidates together, if none is stopped early."""
    processes: PlannedProcesses | None = None
    """None where not known."""
