"""The configuration of a job: frozen dataclasses, read from a TOML recipe and options.

A recipe is a TOML file with one table per dataclass below. It may build on another recipe, named
by `extends`, whose keys it overrides. Options of the form `section.key=value` override both.
Unknown keys are refused, and all faults are reported at once, before anything is loaded.
"""

from __future__ import annotations

import dataclasses
import json
import re
import string
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from nlijob.errors import ConfigurationError
from nlijob.heads import HeadName, describe
from nlijob.printable import printable
from nlijob.recipe import drop_other_size, read_recipe
from nlijob.space import MOST_CANDIDATES, combination_faults, space_faults
from nlijob.typed import build

Device = Literal["auto", "cpu", "cuda"]
TrackerName = Literal["tensorboard", "mlflow", "wandb", "trackio"]
TARGET_KEYWORDS = ("attention", "mlp", "all-linear")
"""What lora.target_modules may name instead of modules."""
FIELDS = ("premise", "hypothesis", "answers")
"""What a template may name in braces."""
MOST_TRAININGS = 100
MOST_SEED = 10**9
"""Seeds of single epochs are made from it, and must fit into 63 bits."""
SEARCH_SEEDS_FROM = 1_000
"""How far the seed of a search lies above the first one of the run, by default."""
OWN_TEXTS = ("general", "demo")
"""Values of forgetting.texts that name texts which come with nlijob."""
DEFAULT_LABELS = ("entailment", "neutral", "contradiction")
LONGEST_SET_NAME = 60
SET_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_SET_NAME - 1}}}", re.ASCII)
"""Names of further test sets, which are names of files too."""


@dataclass(frozen=True)
class SplitSize:
    """The rows to take from a split: one in every `stride` rows, or `size` evenly spaced rows."""

    stride: int | None = None
    """Take rows 0, k, 2k, ... of the split in its stored order."""
    size: int | None = None
    """Take this many evenly spaced rows; 0 takes all."""


@dataclass(frozen=True)
class DataConfig:
    """The data set, the rows to take from each split, and the meaning of columns and labels.

    Each split needs either a stride or a size, not both. Rows without a gold label (label -1) are
    dropped after the selection.
    """

    dataset: str
    """Hub data set id, a directory with files for the splits, a file with all rows, or "demo"."""
    revision: str | None = None
    """Commit id of the hub data set. Without one, the newest version is used, and a later run may
    see other rows."""
    config_name: str | None = None
    """Configuration of the hub data set, such as "plain_text"."""
    train_stride: int | None = None
    """Take training rows 0, k, 2k, ... in their stored order; 1 takes all."""
    train_size: int | None = None
    """Take this many evenly spaced training rows; 0 takes all."""
    validation_stride: int | None = None
    """Take validation rows 0, k, 2k, ... in their stored order; 1 takes all."""
    validation_size: int | None = None
    """Take this many evenly spaced validation rows; 0 takes all."""
    test_stride: int | None = None
    """Take test rows 0, k, 2k, ... in their stored order; 1 takes all."""
    test_size: int | None = None
    """Take this many evenly spaced test rows; 0 takes all."""
    train_split: str = "train"
    """The source's name for the training split."""
    validation_split: str = "validation"
    """The source's name for the validation split; MultiNLI, for example, has
    "validation_matched"."""
    test_split: str = "test"
    """The source's name for the test split. Several names joined by + are read one after the other,
    such as "train_r1+train_r2". A validation or test split that a source does not have is taken
    from its training rows, unless a name is given here."""
    split_column: str = ""
    """Column that says whose split a row is, in a file that holds all of them. If empty, a column
    named split or SemEval_set."""
    premise_column: str = "premise"
    """Column that holds the premise. The columns of well-known corpora are found by themselves."""
    hypothesis_column: str = "hypothesis"
    """Column that holds the hypothesis."""
    label_column: str = "label"
    """Column that holds the gold label, as a number or a name."""
    columns: tuple[str, ...] = ()
    """Names of all columns, in order, of CSV and TSV files whose first line does not name them."""
    label_names: tuple[str, ...] = DEFAULT_LABELS
    """Names of labels 0, 1, 2, ...; their number is the number of classes. The integers of a source
    that names its labels are translated by the names. Data that have the two labels of a known
    two-way set, such as entailment and not_entailment, get these instead of the default."""
    label_map: dict[str, int] = field(default_factory=dict)
    """Maps the source's spelling of a label to a label number, or to -1 for no gold label. Needed
    only for spellings that are neither in label_names nor a label number."""
    annotator_columns: tuple[str, ...] | None = None
    """Columns of the test rows with the labels of single annotators: one that holds all of them, or
    one for each annotator. If not set, they are found by their names, such as annotator_labels or
    label1 to label5; [] turns this off."""

    def split_size(self, split: str) -> SplitSize:
        """Return how many rows of "train", "validation" or "test" to take."""
        return SplitSize(getattr(self, f"{split}_stride"), getattr(self, f"{split}_size"))

    def key(self, name: str) -> str:
        """Return how messages name one of these keys; "" where the user cannot set it."""
        return f"data.{name}"

    def setting(self, name: str, value: str) -> str:
        """Return how messages write that a key is set to a value in TOML."""
        setting = f"{self.key(name)}={value}"
        return f"--set '{setting}'" if '"' in value else f"--set {setting}"

    def size_option(self, split: str) -> str:
        """Return how messages name the option or key for the number of rows of a split."""
        return f"--{split}-size"

    def split_name(self, split: str) -> str:
        """Return how messages name a split."""
        return split


@dataclass(frozen=True)
class TransferConfig:
    """A further test set, on which the base model and the tuned model are compared too.

    A recipe names any number of them, each under a heading `[[transfer]]` of its own. They affect
    neither the training nor the choice of an epoch.
    """

    name: str
    """A short name for the set, unlike those of the others: of letters, digits, ".", "_" and "-",
    as files bear it."""
    dataset: str
    """Hub data set id, a directory with data files, or a file, of which all rows are the set."""
    revision: str | None = None
    """Commit id of the hub data set. Without one, the newest version is used."""
    config_name: str | None = None
    """Configuration of the hub data set, such as "plain_text"."""
    split: str = "test"
    """The source's name for the split; several names joined by + are read one after the other."""
    stride: int | None = None
    """Take rows 0, k, 2k, ... in their stored order."""
    size: int | None = None
    """Take this many evenly spaced rows. Without stride and size, all rows are taken."""
    premise_column: str = "premise"
    """Column that holds the premise. The columns of well-known corpora are found by themselves."""
    hypothesis_column: str = "hypothesis"
    """Column that holds the hypothesis."""
    label_column: str = "label"
    """Column that holds the gold label, as a number or a name."""
    columns: tuple[str, ...] = ()
    """Names of all columns, in order, of CSV and TSV files whose first line does not name them."""
    label_names: tuple[str, ...] = ()
    """Names of the set's own labels 0, 1, 2, ..., if they are not those of the run. If empty, they
    are the values of `answers`; or else the labels of a known two-way set, if the data have these
    alone; or else those of the run."""
    label_map: dict[str, int] = field(default_factory=dict)
    """Maps the source's spelling of a label to the number of one of the set's labels, or to -1 for
    no gold label. Several spellings may stand for one label."""
    answers: dict[str, str] = field(default_factory=dict)
    """Maps each label of the run, which the model answers, to the label of the set for which it
    counts; several may count for one. Needed only where the set has labels of its own that are not
    known: entailment and not_entailment are, where every other answer counts for the second."""


@dataclass(frozen=True)
class ModelConfig:
    """The base model, and how it is held in memory."""

    name: str
    """Hub model id, a directory that holds a model, or "demo"."""
    revision: str | None = None
    """Commit id of the hub model. Without one, the newest version is used."""
    head: HeadName = "causal"
    """How the model answers. causal: with one token after the prompt. sequence-classification: with
    a linear layer on the transformer, which is trained too. It is the model's own if that was made
    for labels of the same names, and new otherwise."""
    device: Device = "auto"
    """Where the model is computed. auto: on an NVIDIA GPU if there is one, else on the CPU."""
    requires_gpu: bool = False
    """Refuse to start without a GPU unless device is "cpu"."""
    quantization: Literal["nf4", "none"] = "nf4"
    """nf4: hold linear layers' weights in 4 bits (QLoRA). none: hold them in compute_dtype."""
    double_quantization: bool = True
    """Also quantise the constants of 4-bit weights, which saves about 0.4 bits per weight."""
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Data type of matrix products. auto: on a GPU, bfloat16 from compute capability 8.0 on, else
    float16; on a CPU, bfloat16 if it has AMX and the model's hidden size is at least 256, else
    float32."""
    residual_dropout: float | None = None
    """Dropout probability on the residual stream in training; none keeps the model's own."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model, for a model that transformers itself does not
    have. That code can do whatever the job may do: read it first, and pin model.revision."""
    max_length: int | None = None
    """Longest prompt in tokens; none allows the model's whole context."""
    too_long: Literal["error", "drop"] = "error"
    """What happens to rows whose prompt is longer. error: the job ends and names them. drop: they
    are left out; the report counts them. No row is ever truncated."""


@dataclass(frozen=True)
class PromptConfig:
    """How a row becomes model input."""

    template: str = ""
    """Text with {premise} and {hypothesis}. {answers} becomes the answers and their labels, such as
    "0 for entailment, 1 for neutral, 2 for contradiction". If empty, which only the classification
    head allows, the tokenizer joins the two texts as a pair."""
    verbalizers: Literal["auto"] | tuple[str, ...] = "auto"
    """Causal head: the answer that stands for each label. auto: the first that the tokenizer tells
    apart of digits, letters and the labels' names. What all answers begin with alike, in tokens
    after the prompt, is added to the prompt; the next token decides, and must differ."""
    chat: Literal["auto", "never", "always"] = "auto"
    """Whether the prompt is put into the model's chat template, as the user's message. auto: with
    the causal head, if the model has a template and the prompt has no special tokens of its own."""


@dataclass(frozen=True)
class LoraConfig:
    """The adapter (Hu et al., 2021, LoRA)."""

    r: int = 16
    """Rank of each adapter matrix."""
    alpha: int = 32
    """The adapter's output is scaled by alpha / r."""
    dropout: float = 0.05
    """Dropout probability on the adapter's input in training."""
    target_modules: str | tuple[str, ...] = "attention"
    """The linear modules to adapt. attention: the projections to queries, keys and values, and of
    attention's output, found by the model's structure. mlp: the layers between. all-linear: all but
    the head. Or a list of names; or a regular expression for whole names, such as
    ".*[.][0-3][.].*_proj". Always in the part of the model that reads text. What matches nothing is
    an error that names what there is."""


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation: AdamW on the adapter and on a classification head."""

    epochs: int = 5
    """Passes over the training rows. Each ends with a checkpoint and a validation score."""
    batch_size: int = 8
    """Effective batch size: rows per optimizer step, however few are in memory at once."""
    micro_batch_size: int | None = None
    """Rows per forward pass; must divide batch_size. none takes the whole batch. If memory runs
    out, the job takes fewer, with the same outcome."""
    learning_rate: float = 2e-4
    """Highest learning rate, reached at the end of the warm-up."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate changes after the warm-up: down to 0 along a line or a half cosine, or
    not at all."""
    warmup_ratio: float = 0.03
    """Share of all optimizer steps in which the learning rate rises linearly from 0."""
    weight_decay: float = 0.0
    """AdamW's weight decay; 0 turns it off."""
    max_grad_norm: float = 1.0
    """Gradients with a larger norm are scaled down to it."""
    gradient_checkpointing: bool = False
    """Use as little memory as possible: recompute activations in the backward pass, keep the base
    weights in 4 bits, and score few rows at once. Slower, with the same outcome."""
    speed: Literal["auto", "graph", "plain"] = "auto"
    """Execution mode; the outcome is the same up to rounding. graph: packed rows and CUDA graphs,
    or an error. plain: the libraries' own layers, one operation after the other. auto: the fastest
    mode that supports the model and the machine; on a CPU, packed rows without graphs."""
    checkpoint_every_s: float = 300.0
    """Longest time in seconds between two checkpoints within an epoch, from which an interrupted
    training resumes; 0 writes them at the ends of epochs only."""
    seed: int = 42
    """Seed of the row order, dropout, and the first weights of the adapter and a new head."""
    seeds: int | tuple[int, ...] = 1
    """Trainings of the recipe that differ in their seed alone. A number: that many, with `seed` and
    the next seeds. A list: one training for each of these seeds; `seed` is then the first."""
    keep: Literal["best", "all"] = "best"
    """Where there are several trainings: whose adapters are kept after each epoch. best: of the
    training with the best validation accuracy. all: of every one, which takes as many times the
    space on disk."""


@dataclass(frozen=True)
class SweepConfig:
    """A search for the settings of adapter and training with the best validation accuracy.

    Every candidate is trained, and scored on the validation rows alone. The best one's settings
    are then those of the run, whose trainings have other seeds.
    """

    space: dict[str, str | tuple[int | float | str, ...]] = field(default_factory=dict)
    """Maps settings, such as "lora.r", to the values to choose from: a list, or a range such as
    "1e-5..1e-3:log" (`:log`: equal factors count as equal distances). Of [lora], all keys; of
    [train], learning_rate, schedule, warmup_ratio, weight_decay, max_grad_norm, epochs and
    batch_size. Empty: no search."""
    trials: int | None = None
    """Candidates that Optuna chooses, each with the outcome of those before it (needs the extra
    `sweep`). If not set, all combinations are tried, which ranges do not have."""
    pruning: bool = False
    """Stop a candidate after an epoch in which its best validation accuracy so far is below the
    median of the candidates before it at that epoch."""
    seed: int | None = None
    """Seed of every candidate's training, and of Optuna's choices. It is none of the run's own
    seeds, so that the best candidate's luck is not reported. If not set, train.seed + 1000."""


@dataclass(frozen=True)
class EvalConfig:
    """How models are scored, and what else is measured for the report."""

    batch_size: int = 32
    """Rows per forward pass in scoring; fewer if memory runs out."""
    test_each_epoch: bool = True
    """Also score the test rows after each epoch. Shown in the report, never used to select."""
    cases: int = 12
    """Failure cases of each kind to show in detail; at least 5."""
    generate_tokens: int = 24
    """Longest free output generated for a shown case, in tokens; 0 generates none."""
    word_importance: bool = True
    """For shown cases, measure how both models' answers change without each of the words."""
    blank_premise: bool = True
    """Also score the tuned model on the test rows with a blank premise, to see if it uses it."""
    few_shot: int = 0
    """Also score the base model on the test rows with this many training rows and their answers in
    its prompt; 0 leaves this out."""


@dataclass(frozen=True)
class ForgettingConfig:
    """What tuning did beside the task: the loss on general text before and after (causal head)."""

    texts: str = "general"
    """general: 60 short English texts that come with nlijob. demo: texts of the kind that the
    demo's model has read. Or a file: plain text with blank lines between its paragraphs, or rows
    with a column named text (.jsonl, .json, .csv, .tsv, .parquet). At most 500 texts are read,
    evenly spaced. "" measures nothing."""
    tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness for both models: its names, or YAML files that define one.
    Needs the extra lm-eval. A task's file may name Python functions, which run: take only files
    that you trust."""
    documents: int = 0
    """Take the first so many documents of each task; 0 takes all."""


@dataclass(frozen=True)
class MachineConfig:
    """The GPUs that the job uses. They change its time, and its figures by rounding alone."""

    gpus: Literal["auto"] | int = "auto"
    """How many GPUs of this host to use; auto: as many as are visible and save time. On a CPU, how
    many processes; auto is one."""
    share: Literal["auto", "trials", "steps", "none"] = "auto"
    """How several GPUs train. trials: each takes one training at a time; steps: all share the rows
    of each optimizer step; none: the first one trains, and all score. auto: trials where there are
    several trainings, or else steps where that is measured to be faster."""
    accelerate_config: str = ""
    """A configuration of accelerate (YAML or JSON) that divides the base model's weights between
    the GPUs by FSDP, for a model that no single GPU has room for; "fsdp": the one that comes with
    the job. Empty: every GPU has all weights."""


@dataclass(frozen=True)
class ReportConfig:
    """What the report shows, the gates that the job must pass, the prices of machines, and the
    carbon intensity of the grid."""

    title: str = ""
    """The report's title; empty for a title made from the model's and the data set's names."""
    sample_interval_s: float = 1.0
    """Seconds between two hardware samples."""
    slice_columns: tuple[str, ...] | None = None
    """Further columns of the test rows by whose values the report shows the accuracy. If not set,
    those with 2 to 20 different values, such as a genre; [] turns this off."""
    min_accuracy: float | None = None
    """End with exit code 3 if the tuned model's test accuracy is lower (0 to 1); none: no gate."""
    min_gain: float | None = None
    """End with exit code 3 if tuned minus base test accuracy is lower (-1 to 1); none: no gate."""
    gate_on: Literal["value", "lower"] = "value"
    """What min_accuracy and min_gain are compared with: the measured value, or the lower bound of
    its 95 % interval."""
    price_per_hour: float | None = None
    """Price of this machine per hour, from which the report computes the job's cost; none: see
    gpu_prices_per_hour."""
    gpu_prices_per_hour: dict[str, float] = field(default_factory=dict)
    """Maps part of a GPU's name to its price per hour. Used if price_per_hour is not given."""
    currency: str = "USD"
    """Currency of the prices."""
    track: tuple[TrackerName, ...] = ()
    """Trackers that are told of steps, epochs, outcome and page: tensorboard, mlflow, wandb,
    trackio. Each needs the extra of its name."""
    carbon_g_per_kwh: float | None = None
    """Carbon intensity of the grid in grams of CO2 equivalents per kWh, from which the report
    computes the emissions of the GPUs' energy; none: no emissions are shown."""


@dataclass(frozen=True)
class JobConfig:
    """The whole configuration of one job."""

    data: DataConfig
    """The data set and the rows taken from it."""
    model: ModelConfig
    """The base model."""
    description: str = ""
    """One line about the recipe, shown in the list of recipes."""
    prompt: PromptConfig = PromptConfig()
    """How a row becomes model input."""
    lora: LoraConfig = LoraConfig()
    """The adapter."""
    train: TrainConfig = TrainConfig()
    """The optimisation."""
    sweep: SweepConfig = SweepConfig()
    """The search for settings."""
    eval: EvalConfig = EvalConfig()
    """How models are scored."""
    forgetting: ForgettingConfig = ForgettingConfig()
    """What tuning did beside the task."""
    report: ReportConfig = ReportConfig()
    """The report, its gates and prices."""
    machine: MachineConfig = MachineConfig()
    """The GPUs in use."""
    transfer: tuple[TransferConfig, ...] = ()
    """Further test sets."""

    def value(self, dotted: str) -> Any:
        """Return the section "section" as a dict, or the value "section.key".

        Of a section that a recipe may have several times, a dict for each.
        """
        value: Any = self
        for part in dotted.split("."):
            value = getattr(value, part)
        if isinstance(value, tuple):
            return tuple(dataclasses.asdict(v) if is_section(v) else v for v in value)
        return dataclasses.asdict(value) if is_section(value) else value


def is_section(value: object) -> bool:
    """Whether a value of the configuration is a table of keys with a dataclass of its own."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def load_config(recipe: str, overrides: Mapping[str, Any] | None = None) -> JobConfig:
    """Read a recipe (a name or a TOML file) and apply `overrides` ("section.key" -> value).

    Raises ConfigurationError that lists every fault.
    """
    tables = read_recipe(recipe)
    faults: list[str] = []
    for dotted, value in (overrides or {}).items():
        _override(tables, dotted, value, faults)
    config = build(JobConfig, tables, "", faults)
    if config is not None:
        faulty = {key for fault in faults for key in _keys(fault)}
        faults += [fault for fault in check(config) if faulty.isdisjoint(_keys(fault))]
    if faults or config is None:
        raise ConfigurationError.from_faults(faults, f"check recipe {recipe!r} and the options")
    return with_seeds(config)


def with_seeds(config: JobConfig) -> JobConfig:
    """The configuration with the seeds of its trainings written in one way.

    `train.seed` is the first; `train.seeds` is 1 where there is one training, else the list.
    """
    train = config.train
    seeds = seeds_of(train)
    several = seeds if len(seeds) > 1 else 1
    train = dataclasses.replace(train, seed=seeds[0], seeds=several)
    sweep = dataclasses.replace(config.sweep, seed=_search_seed(config))
    return dataclasses.replace(config, train=train, sweep=sweep)


def _search_seed(config: JobConfig) -> int | None:
    """The seed with which a search trains; None where there is none."""
    given = config.sweep.seed
    if not config.sweep.space or given is not None:
        return given
    return seeds_of(config.train)[0] + SEARCH_SEEDS_FROM


def without_machine(config: JobConfig) -> JobConfig:
    """The configuration of the same outcome on whatever GPUs: its machine section is the default.

    Two configurations that differ in this section alone are of the same run.
    """
    return dataclasses.replace(config, machine=MachineConfig())


def with_settings(config: JobConfig, settings: Mapping[str, Any]) -> JobConfig:
    """The configuration with other values of some keys ("section.key" -> value).

    Raises ConfigurationError where a value has another type than its key.
    """
    faults: list[str] = []
    for dotted, value in settings.items():
        section, _, key = dotted.partition(".")
        keys = {**dataclasses.asdict(getattr(config, section)), key: value}
        built: Any = build(type(getattr(config, section)), keys, section, faults)
        config = dataclasses.replace(config, **{section: built})
    if faults:
        raise ConfigurationError.from_faults(faults, "check the settings")
    return config


def seeds_of(train: TrainConfig) -> tuple[int, ...]:
    """The seed of each training."""
    if isinstance(train.seeds, int):
        return tuple(range(train.seed, train.seed + train.seeds))
    return train.seeds


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split 'section.key=value' into the dotted key and the value, read as TOML or else as text."""
    key, separator, raw = text.partition("=")
    if not separator or key.strip().count(".") != 1:
        raise ConfigurationError(
            f"--set {text!r}: expected section.key=value", "for example --set lora.r=32"
        )
    try:
        return key.strip(), tomllib.loads(f"v = {raw}")["v"]
    except (ValueError, RecursionError):  # also numbers of too many digits
        return key.strip(), raw.strip()


def check(config: JobConfig) -> list[str]:
    """Return the faults that types do not rule out, each as "section.key: what is wrong"."""
    return [
        *_check_text(config),
        *_check_data(config.data),
        *_check_prompt(config),
        *_check_numbers(config),
        *_check_trackers(config.report),
        *_check_hardware(config.model),
        *_check_tasks(config),
        *_check_transfer(config.transfer),
        *_check_sweep(config),
        *_check_machine(config),
    ]


def _keys(fault: str) -> list[str]:
    """Return the keys that a fault names: "a.b, a.c: what is wrong" -> ["a.b", "a.c"]."""
    return fault.partition(":")[0].split(", ")


def _check_text(config: JobConfig) -> Iterable[str]:
    """Refuse bytes that are not UTF-8, such as a path of another encoding: records are UTF-8."""
    for section, keys in dataclasses.asdict(config).items():
        for key, value in keys.items() if isinstance(keys, dict) else [("", keys)]:
            text = json.dumps(value, ensure_ascii=False, default=str)
            if any("\ud800" <= char <= "\udfff" for char in text):
                yield f"{section}{'.' * bool(key)}{key}: {printable(text)} is not UTF-8; rename it"


def _check_data(data: DataConfig) -> Iterable[str]:
    for split in ("train", "validation", "test"):
        wanted = data.split_size(split)
        if (wanted.stride is None) == (wanted.size is None):
            yield f"data.{split}_stride, data.{split}_size: give exactly one of the two"
        if wanted.stride is not None and wanted.stride < 1:
            yield f"data.{split}_stride: {wanted.stride} is below 1"
        if wanted.size is not None and wanted.size < 0:
            yield f"data.{split}_size: {wanted.size} is below 0 (0 takes all rows)"
    if len(set(data.columns)) != len(data.columns):
        yield "data.columns: names must differ"
    if len(data.label_names) < 2:
        yield "data.label_names: at least two labels are needed"
    if len(set(data.label_names)) != len(data.label_names):
        yield "data.label_names: names must differ"
    largest = len(data.label_names) - 1
    for name, label in data.label_map.items():
        if not -1 <= label <= largest:
            yield f"data.label_map.{name}: {label} is not a label number (-1 to {largest})"


def _check_prompt(config: JobConfig) -> Iterable[str]:
    prompt, head = config.prompt, describe(config.model.head)
    if prompt.template:
        yield from _check_template(prompt.template)
    yield from head.faults(config)
    if config.eval.few_shot and not head.takes_few_shot:
        yield f"eval.few_shot: the {head.title} takes no examples in its prompt; set it to 0"
    if prompt.verbalizers != "auto" and len(set(prompt.verbalizers)) != len(prompt.verbalizers):
        yield "prompt.verbalizers: two labels share a verbalizer"
    if prompt.chat == "always" and not prompt.template:
        yield "prompt.chat: there is no prompt.template to put into the chat template"


def _check_template(template: str) -> Iterable[str]:
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        yield f"prompt.template: {error} (write {{{{ and }}}} for literal braces)"
        return
    for name in ("premise", "hypothesis"):
        if name not in names:
            yield f"prompt.template: {{{name}}} is missing"
    for name in sorted(names - set(FIELDS)):
        yield (
            f"prompt.template: {{{name}}} is unknown; use {{premise}}, {{hypothesis}} and "
            "{answers} only"
        )


def _check_trackers(report: ReportConfig) -> Iterable[str]:
    if len(set(report.track)) != len(report.track):
        yield "report.track: trackers must differ"


def _check_numbers(config: JobConfig) -> Iterable[str]:
    train = config.train
    at_least = {
        "lora.r": 1,
        "lora.alpha": 1,
        "train.epochs": 1,
        "train.batch_size": 1,
        "train.micro_batch_size": 1,
        "train.weight_decay": 0,
        "train.checkpoint_every_s": 0,
        "eval.batch_size": 1,
        "eval.cases": 5,
        "eval.generate_tokens": 0,
        "eval.few_shot": 0,
        "forgetting.documents": 0,
        "model.max_length": 1,
        "report.price_per_hour": 0,
        "report.carbon_g_per_kwh": 0,
    }
    for dotted, least in at_least.items():
        value = config.value(dotted)
        if value is not None and value < least:
            yield f"{dotted}: {value} is below {least}"
    for dotted in ("train.learning_rate", "train.max_grad_norm", "report.sample_interval_s"):
        if config.value(dotted) <= 0:
            yield f"{dotted}: {config.value(dotted)} is not above 0"
    for dotted in ("lora.dropout", "train.warmup_ratio", "model.residual_dropout"):
        value = config.value(dotted)
        if value is not None and not 0 <= value < 1:
            yield f"{dotted}: {value} is not in [0, 1)"
    for dotted, low in (("report.min_accuracy", 0), ("report.min_gain", -1)):
        value = config.value(dotted)
        if value is not None and not low <= value <= 1:
            yield f"{dotted}: {value} is not in [{low}, 1]; give a fraction, not a percentage"
    if train.micro_batch_size and train.batch_size % train.micro_batch_size:
        yield (
            f"train.micro_batch_size: {train.micro_batch_size} does not divide "
            f"train.batch_size {train.batch_size}"
        )
    yield from _check_seeds(train)
    for gpu, price in config.report.gpu_prices_per_hour.items():
        if price < 0:
            yield f"report.gpu_prices_per_hour.{gpu}: {price} is below 0"
    yield from _check_targets(config.lora.target_modules)


def _check_seeds(train: TrainConfig) -> Iterable[str]:
    if isinstance(train.seeds, int):
        if not 1 <= train.seeds <= MOST_TRAININGS:
            yield f"train.seeds: {train.seeds} trainings; give 1 to {MOST_TRAININGS}"
    elif not 1 <= len(train.seeds) <= MOST_TRAININGS:
        yield f"train.seeds: name 1 to {MOST_TRAININGS} seeds"
    elif len(set(train.seeds)) != len(train.seeds):
        yield "train.seeds: seeds must differ, as the same seed gives the same training"
    largest = MOST_SEED - (train.seeds if isinstance(train.seeds, int) else 0)
    seeds = (train.seed,) if isinstance(train.seeds, int) else (train.seed, *train.seeds)
    if not all(0 <= seed <= largest for seed in seeds):
        yield f"train.seed, train.seeds: give numbers from 0 to {largest:,}"


def target_pattern(wanted: str) -> re.Pattern[str] | None:
    """lora.target_modules as a regular expression; None if it is a keyword or a module's name.

    Raises re.error if it is none of them.
    """
    is_name = wanted in TARGET_KEYWORDS or re.fullmatch(r"[\w.]+", wanted)
    return None if is_name else re.compile(wanted)


def _check_targets(wanted: str | tuple[str, ...]) -> Iterable[str]:
    if not wanted:
        yield "lora.target_modules: name at least one module"
    if isinstance(wanted, str):
        try:
            target_pattern(wanted)
        except re.error as error:
            yield f"lora.target_modules: {wanted!r} is not a regular expression: {error}"


def _check_tasks(config: JobConfig) -> Iterable[str]:
    tasks, head = config.forgetting.tasks, describe(config.model.head)
    if tasks and not head.writes_text:
        yield f"forgetting.tasks: the {head.title} writes no text; leave them out"
    if len(set(tasks)) != len(tasks) or not all(tasks):
        yield "forgetting.tasks: names must differ, and none may be empty"


def _check_hardware(model: ModelConfig) -> Iterable[str]:
    if model.device == "cpu" and model.compute_dtype == "float16":
        yield "model.compute_dtype: float16 does not train on a CPU; use float32 or bfloat16"


def _check_machine(config: JobConfig) -> Iterable[str]:
    if not config.machine.accelerate_config:
        return
    if config.machine.share not in ("auto", "steps"):
        yield (
            f"machine.share, machine.accelerate_config: {config.machine.share!r} has a GPU train "
            "alone, which it cannot with divided weights"
        )
    if config.train.speed == "graph":
        yield "train.speed, machine.accelerate_config: CUDA graphs cannot use divided weights"
    for key in (key for key in config.sweep.space if key.startswith("lora.")):
        yield f"sweep.space, machine.accelerate_config: no search for {key} with divided weights"


def _check_transfer(sets: Sequence[TransferConfig]) -> Iterable[str]:
    names = [one.name.lower() for one in sets]
    for number, one in enumerate(sets):
        where = f"transfer[{number}]"
        if not SET_NAME.fullmatch(one.name):
            yield (
                f"{where}.name: {one.name!r} is no name of a file; take at most {LONGEST_SET_NAME} "
                'letters, digits, ".", "_" and "-", with a letter or digit first'
            )
        elif names.index(one.name.lower()) != number:
            yield f"{where}.name: {one.name} is the name of two sets; names must differ"
        if one.stride is not None and one.size is not None:
            yield f"{where}.stride, {where}.size: give at most one of the two"
        if one.stride is not None and one.stride < 1:
            yield f"{where}.stride: {one.stride} is below 1"
        if one.size is not None and one.size < 0:
            yield f"{where}.size: {one.size} is below 0 (0 takes all rows)"
        if len(set(one.columns)) != len(one.columns):
            yield f"{where}.columns: names must differ"
        yield from _check_labels_of_set(where, one)


def _check_labels_of_set(where: str, one: TransferConfig) -> Iterable[str]:
    names = one.label_names
    if len(names) == 1:
        yield f"{where}.label_names: at least two labels are needed"
    if len(set(names)) != len(names):
        yield f"{where}.label_names: names must differ"
    for label, answer in one.answers.items():
        if names and answer not in names:
            known = ", ".join(names)
            yield f"{where}.answers.{label}: {answer!r} is none of the set's labels ({known})"
    for spelling, number in one.label_map.items():
        if number < -1 or (names and number >= len(names)):
            yield f"{where}.label_map.{spelling}: {number} is not a label number of the set"


def _check_sweep(config: JobConfig) -> Iterable[str]:
    sweep = config.sweep
    if not sweep.space:
        if sweep.trials is not None or sweep.pruning or sweep.seed is not None:
            yield "sweep.space: there is nothing to search; name settings, as with --sweep"
        return
    yield from space_faults(sweep.space, partial(_faults_with, config))
    if sweep.trials is None:
        yield from combination_faults(sweep.space)
    elif not 2 <= sweep.trials <= MOST_CANDIDATES:
        yield f"sweep.trials: {sweep.trials} candidates; give 2 to {MOST_CANDIDATES:,}"
    seed = _search_seed(config)
    if seed in seeds_of(config.train):
        yield f"sweep.seed: {seed} is a seed of the run as well; give another one"
    elif seed is not None and not 0 <= seed <= MOST_SEED:
        yield f"sweep.seed: give a number from 0 to {MOST_SEED:,}"


def _faults_with(config: JobConfig, dotted: str, value: Any) -> list[str]:
    """The faults that another value of one setting brings."""
    plain = dataclasses.replace(config, sweep=SweepConfig())
    try:
        changed = with_settings(plain, {dotted: value})
    except ConfigurationError as error:
        return [error.message]
    known = check(plain)
    return [fault for fault in check(changed) if fault not in known]


def _override(tables: dict[str, Any], dotted: str, value: Any, faults: list[str]) -> None:
    section, _, key = dotted.partition(".")
    table = tables.setdefault(section, {})
    if not isinstance(table, dict):
        faults.append(f"{dotted}: {section} is not a section")
        return
    drop_other_size(table, section, key)
    if dotted == "sweep.space" and isinstance(table.get(key), dict) and isinstance(value, dict):
        value = {**table[key], **value}  # --sweep names one setting of several
    table[key] = value
