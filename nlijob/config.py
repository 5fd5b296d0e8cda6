"""What a job is asked to do: frozen dataclasses read from a TOML recipe and options.

A recipe is a TOML file with one table a dataclass below. It may name another recipe with
`extends`; its own keys then win. Options come on top as `section.key=value`. Unknown keys are
refused and every fault is reported at once, before anything is loaded.
"""

from __future__ import annotations

import dataclasses
import difflib
import string
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nlijob.errors import ConfigurationError
from nlijob.heads import HeadName, describe
from nlijob.typed import build

RECIPES_DIR = Path(__file__).parent / "recipes"

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class SplitSize:
    """How many rows of a split to take: one row every `stride`, or `size` evenly spaced rows."""

    stride: int | None = None
    """Take rows 0, k, 2k, ... of the split as it stands."""
    size: int | None = None
    """Take this many evenly spaced rows; 0 takes all."""


@dataclass(frozen=True)
class DataConfig:
    """Which rows the job works on. A split is taken by stride or by size, never both."""

    dataset: str
    """Hub data set id, a directory with {train,validation,test}.{jsonl,parquet,csv}, or "demo"."""
    revision: str | None = None
    """Commit id of the hub data set; pin it, or tomorrow's figures are about other rows."""
    config_name: str | None = None
    """Configuration of the hub data set, such as "plain_text"."""
    train_stride: int | None = None
    train_size: int | None = None
    validation_stride: int | None = None
    validation_size: int | None = None
    test_stride: int | None = None
    test_size: int | None = None
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"
    """Names of the splits in the source (MultiNLI, say, has "validation_matched")."""
    premise_column: str = "premise"
    hypothesis_column: str = "hypothesis"
    label_column: str = "label"
    label_names: tuple[str, ...] = ("entailment", "neutral", "contradiction")
    """Meaning of label 0, 1, 2, ...; fixes the number of classes."""
    label_map: dict[str, int] = field(default_factory=dict)
    """Label as the source spells it -> label number, where names above do not settle it."""

    def split_size(self, split: str) -> SplitSize:
        """How many rows of "train", "validation" or "test" to take."""
        return SplitSize(getattr(self, f"{split}_stride"), getattr(self, f"{split}_size"))


@dataclass(frozen=True)
class ModelConfig:
    """The base model and how it is held in memory."""

    name: str
    """Hub model id, a directory with a model, or "demo"."""
    revision: str | None = None
    """Commit id of the hub model."""
    head: HeadName = "causal"
    device: Device = "auto"
    requires_gpu: bool = False
    """Refuse to start without a GPU unless device is "cpu"."""
    quantization: Literal["nf4", "none"] = "nf4"
    double_quantization: bool = True
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """auto: bfloat16 where the GPU has it, else float16; float32 on a CPU."""
    residual_dropout: float | None = None
    """Overrides the model's own dropout on residual values while training; none leaves it."""
    max_length: int | None = None
    """Longest prompt in tokens; none takes the model's context. Longer rows are an error."""


@dataclass(frozen=True)
class PromptConfig:
    """How a row becomes model input."""

    template: str = ""
    """Text with {premise} and {hypothesis}. Empty (classification only): the tokenizer's pair."""
    verbalizers: tuple[str, ...] = ()
    """Causal head: the text that stands for each label, one distinct token each, in context."""


@dataclass(frozen=True)
class LoraConfig:
    """The adapter (Hu et al., 2021, LoRA)."""

    r: int = 16
    alpha: int = 32
    dropout: float = 0.05
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "dense")
    """Names of linear modules; a name that matches none is an error."""


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation: AdamW on the adapter (and a classification head)."""

    epochs: int = 5
    batch_size: int = 8
    """Effective batch: rows an optimizer step, whatever is held in memory at once."""
    micro_batch_size: int | None = None
    """Rows a forward pass; none takes the whole batch. Must divide batch_size."""
    learning_rate: float = 2e-4
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_ratio: float = 0.03
    """Share of all steps in which the learning rate rises from 0."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    gradient_checkpointing: bool = False
    """Take the least memory: of each layer keep only what enters it and compute the layer again for
    its gradient, keep weights 4-bit, score few rows at once. Slower; the outcome is the same."""
    speed: Literal["auto", "graph", "plain"] = "auto"
    """graph: packed rows and CUDA graphs, or an error; plain: the libraries' own layers, one
    operation after the other; auto: graphs where they serve, on a CPU packed rows without them.
    The outcome is the same."""
    seed: int = 42


@dataclass(frozen=True)
class EvalConfig:
    """How models are scored."""

    batch_size: int = 32
    test_each_epoch: bool = True
    """Also score test rows after each epoch; for information, never used to select."""
    cases: int = 12
    """Failure cases of each kind for which free output is generated and shown; at least 5."""
    generate_tokens: int = 24
    """Length of the free output of a shown case, in tokens; 0 generates none."""
    word_importance: bool = True
    """For shown cases: leave out each word in turn and see what becomes of both models' answers."""
    blank_premise: bool = True
    """Also score the tuned model on the test rows with the premise left blank: does it read it?"""
    few_shot: int = 0
    """Also score the base model on the test rows with this many training rows in its prompt."""


@dataclass(frozen=True)
class ReportConfig:
    """What the report shows and asks for."""

    title: str = ""
    sample_interval_s: float = 1.0
    """Seconds between two hardware samples."""
    min_accuracy: float | None = None
    """Exit 3 where the tuned model's test accuracy is below this (0 to 1)."""
    min_gain: float | None = None
    """Exit 3 where tuned minus base test accuracy is below this (-1 to 1)."""
    gate_on: Literal["value", "lower"] = "value"
    """What the two above are held against: the figure, or the lower bound of its interval."""
    price_per_hour: float | None = None
    """What an hour of this machine costs, for the job's cost on the report."""
    gpu_prices_per_hour: dict[str, float] = field(default_factory=dict)
    """Part of a GPU's name -> its price an hour, where no price of the machine is given."""
    currency: str = "USD"
    """What prices are in."""


@dataclass(frozen=True)
class JobConfig:
    """One job, whole."""

    data: DataConfig
    model: ModelConfig
    description: str = ""
    prompt: PromptConfig = PromptConfig()
    lora: LoraConfig = LoraConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    report: ReportConfig = ReportConfig()

    def value(self, dotted: str) -> Any:
        """The value (or section, as a dict) at "section" or "section.key"."""
        value: Any = self
        for part in dotted.split("."):
            value = getattr(value, part)
        is_section = dataclasses.is_dataclass(value) and not isinstance(value, type)
        return dataclasses.asdict(value) if is_section else value


def recipe_names() -> list[str]:
    """Names of the recipes that come with the job, sorted."""
    return sorted(path.stem for path in RECIPES_DIR.glob("*.toml"))


def recipe_name(recipe: str) -> str:
    """A short name for a recipe given by name or file."""
    return Path(recipe).stem


def load_config(recipe: str, overrides: Mapping[str, Any] | None = None) -> JobConfig:
    """Read a recipe (a name or a TOML file) and put `overrides` ("section.key" -> value) on top.

    Raises ConfigurationError with every fault found.
    """
    tables = _read_recipe(recipe)
    faults: list[str] = []
    for dotted, value in (overrides or {}).items():
        _override(tables, dotted, value, faults)
    config = build(JobConfig, tables, "", faults)
    if config is not None:
        told = {key for fault in faults for key in _keys(fault)}
        faults += [fault for fault in check(config) if told.isdisjoint(_keys(fault))]
    if faults or config is None:
        raise ConfigurationError.from_faults(faults, f"in recipe {recipe!r} with its options")
    return config


def parse_assignment(text: str) -> tuple[str, Any]:
    """'section.key=value' -> (dotted key, value read as TOML, or as text where it is none)."""
    key, separator, raw = text.partition("=")
    if not separator or key.strip().count(".") != 1:
        raise ConfigurationError(
            f"--set {text!r}: expected section.key=value", "for example --set lora.r=32"
        )
    try:
        return key.strip(), tomllib.loads(f"v = {raw}")["v"]
    except tomllib.TOMLDecodeError:
        return key.strip(), raw.strip()


def check(config: JobConfig) -> list[str]:
    """Faults that types alone do not show, each as "section.key: what is wrong"."""
    return [
        *_check_data(config.data),
        *_check_prompt(config),
        *_check_numbers(config),
        *_check_hardware(config.model),
    ]


def _keys(fault: str) -> list[str]:
    """The keys that a fault is about: "a.b, a.c: what is wrong" -> ["a.b", "a.c"]."""
    return fault.partition(":")[0].split(", ")


def _check_data(data: DataConfig) -> Iterable[str]:
    for split in ("train", "validation", "test"):
        wanted = data.split_size(split)
        if (wanted.stride is None) == (wanted.size is None):
            yield f"data.{split}_stride, data.{split}_size: give exactly one of the two"
        if wanted.stride is not None and wanted.stride < 1:
            yield f"data.{split}_stride: {wanted.stride} is below 1"
        if wanted.size is not None and wanted.size < 0:
            yield f"data.{split}_size: {wanted.size} is below 0 (0 takes all rows)"
    if len(data.label_names) < 2:
        yield "data.label_names: at least two labels are needed"
    if len(set(data.label_names)) != len(data.label_names):
        yield "data.label_names: names must differ"
    for name, label in data.label_map.items():
        if not -1 <= label < len(data.label_names):
            yield f"data.label_map.{name}: {label} is no label (-1 to {len(data.label_names) - 1})"


def _check_prompt(config: JobConfig) -> Iterable[str]:
    prompt, head = config.prompt, describe(config.model.head)
    if prompt.template:
        yield from _check_template(prompt.template)
    yield from head.faults(config)
    if config.eval.few_shot and not head.takes_few_shot:
        yield f"eval.few_shot: the {head.title} takes no examples in its prompt; set it to 0"
    if len(set(prompt.verbalizers)) != len(prompt.verbalizers):
        yield "prompt.verbalizers: two labels share one"


def _check_template(template: str) -> Iterable[str]:
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        yield f"prompt.template: {error} (write {{{{ and }}}} for literal braces)"
        return
    for name in ("premise", "hypothesis"):
        if name not in names:
            yield f"prompt.template: {{{name}}} is missing"
    for name in sorted(names - {"premise", "hypothesis"}):
        yield f"prompt.template: {{{name}}} is unknown; only {{premise}} and {{hypothesis}} are"


def _check_numbers(config: JobConfig) -> Iterable[str]:
    train = config.train
    at_least = {
        "lora.r": 1,
        "lora.alpha": 1,
        "train.epochs": 1,
        "train.batch_size": 1,
        "train.micro_batch_size": 1,
        "train.weight_decay": 0,
        "eval.batch_size": 1,
        "eval.cases": 5,
        "eval.generate_tokens": 0,
        "eval.few_shot": 0,
        "model.max_length": 1,
        "report.price_per_hour": 0,
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
            yield f"{dotted}: {value} is not in [{low}, 1]; give a share, not percent"
    if train.micro_batch_size and train.batch_size % train.micro_batch_size:
        yield (
            f"train.micro_batch_size: {train.micro_batch_size} does not divide "
            f"train.batch_size {train.batch_size}"
        )
    for gpu, price in config.report.gpu_prices_per_hour.items():
        if price < 0:
            yield f"report.gpu_prices_per_hour.{gpu}: {price} is below 0"
    if not config.lora.target_modules:
        yield "lora.target_modules: name at least one module"


def _check_hardware(model: ModelConfig) -> Iterable[str]:
    if model.device == "cpu" and model.compute_dtype == "float16":
        yield "model.compute_dtype: float16 does not train on a CPU; use float32 or bfloat16"


def _read_recipe(recipe: str, folder: Path = Path(), seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    path = _recipe_path(recipe, folder)
    if path in seen:
        raise ConfigurationError(f"recipe {recipe!r} extends itself", "remove the circle")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from error
    parent = tables.pop("extends", None)
    if parent is None:
        return tables
    base = _read_recipe(str(parent), path.parent, (*seen, path))
    for section, value in tables.items():
        of_base = base.get(section)
        if isinstance(value, dict) and isinstance(of_base, dict):
            for key in value:
                _drop_other_size(of_base, section, key)
            value = {**of_base, **value}
        base[section] = value
    return base


def _recipe_path(recipe: str, folder: Path) -> Path:
    """The file of a recipe; one named by another recipe stands in or below that one's folder."""
    path = folder / recipe
    if path.suffix == ".toml":
        if path.is_file():
            return path
        raise ConfigurationError(f"recipe file {recipe!r} does not exist")
    built_in = RECIPES_DIR / f"{recipe}.toml"
    if built_in.is_file():
        return built_in
    names = recipe_names()
    close = difflib.get_close_matches(recipe, names, n=1)
    raise ConfigurationError(
        f"unknown recipe {recipe!r}; there are {', '.join(names)}",
        f"did you mean {close[0]!r}?" if close else "or name a .toml file",
    )


def _override(tables: dict[str, Any], dotted: str, value: Any, faults: list[str]) -> None:
    section, _, key = dotted.partition(".")
    table = tables.setdefault(section, {})
    if not isinstance(table, dict):
        faults.append(f"{dotted}: {section} is not a section")
        return
    _drop_other_size(table, section, key)
    table[key] = value


def _drop_other_size(table: dict[str, Any], section: str, key: str) -> None:
    """A size on top of a recipe replaces that split's stride, and the reverse."""
    if section == "data" and key.endswith(("_stride", "_size")):
        split = key.rpartition("_")[0]
        table.pop(f"{split}_stride", None)
        table.pop(f"{split}_size", None)
