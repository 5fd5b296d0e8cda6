"""The model's configuration and its modules, both without weights."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from nlijob.config import JobConfig, ModelConfig
from nlijob.errors import ConfigurationError, NotAvailableError, first_line
from nlijob.gpu.heads import HEAD_CLASSES, Head, head_class
from nlijob.gpu.model.structure import LINEAR, is_bidirectional, structure, transformer_of
from nlijob.gpu.model.targets import find_targets, shortest_ends
from nlijob.heads import describe

RESIDUAL_DROPOUT_KEYS = ("resid_pdrop", "residual_dropout", "hidden_dropout", "hidden_dropout_prob")
ANOTHER_MODEL = "take another model"
CPU_BFLOAT16_WIDTH = 256
"""Hidden size from which a model is computed in bfloat16 on a CPU with AMX. Narrower models gain
next to nothing from it, and in float32 they give the same figures on every CPU."""
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class MetaModel:
    """A model's modules without their weights."""

    config: Any
    """The model's configuration, a transformers.PretrainedConfig."""
    model: nn.Module
    """The whole model on the meta device, which takes no memory."""
    head_modules: tuple[str, ...]
    """Modules that are not quantised: those beside the transformer, such as "lm_head" or "score",
    and the pooler before a classification head, such as "bert.pooler"."""
    targets: tuple[str, ...] = ()
    """The modules that LoRA adapts, as names or ends of names."""
    passed_by: tuple[str, ...] = ()
    """Ends of the names of linear modules whose weights the model reads without calling the
    modules; 4 bits would break that, so they are not quantised either."""

    @property
    def unquantized(self) -> tuple[str, ...]:
        """The modules that are not quantised, as names or ends of names."""
        return (*self.head_modules, *self.passed_by)


def meta_model(config: JobConfig, model_config: Any) -> MetaModel:
    """Build the model on the meta device, from its configuration alone.

    Raises ConfigurationError if there is no such model with the job's head, or if a LoRA target
    matches no linear module; then it names those there are. Raises NotAvailableError if the
    configuration is not valid.
    """
    head = head_class(config.model.head)
    if not _has_class(config.model, model_config, head):
        title = describe(config.model.head).title
        fault = f"transformers has no {model_config.model_type} model with a {title}"
        raise _no_such_head(config.model, model_config, fault)
    try:
        with torch.device("meta"):
            model = head.auto_class.from_config(
                model_config, trust_remote_code=config.model.trust_remote_code
            )
    except Exception as error:  # of any kind, from the model's own code
        raise NotAvailableError(
            f"model {config.model.name} cannot be built from its config.json: {first_line(error)}"
        ) from error
    if head.reads_forward and is_bidirectional(model):
        fault = f"a {model_config.model_type} model reads in both directions and continues no text"
        raise _no_such_head(config.model, model_config, fault)
    return _with_targets(config, model_config, model)


def _with_targets(config: JobConfig, model_config: Any, model: Any) -> MetaModel:
    """Find what is adapted and what is quantised. Raises ConfigurationError like `meta_model`."""
    heads = _head_modules(config, model)
    found = structure(model, heads)
    trains_head = head_class(config.model.head).trains_head
    targets = find_targets(model, found, config.lora.target_modules, heads, trains_head)
    linear = [name for name, module in model.named_modules() if isinstance(module, LINEAR)]
    passed_by = [name for name in linear if name in found.passed_by]
    ends = shortest_ends(passed_by, linear, str.endswith)  # the library compares in this way
    return MetaModel(model_config, model, heads, targets, ends)


def _has_class(model: ModelConfig, model_config: Any, head: type[Head]) -> bool:
    """Whether there is a model of this kind with this head that the job can use."""
    own = getattr(model_config, "auto_map", None) or {}
    if model.trust_remote_code and head.auto_class.__name__ in own:
        return True
    takes_it = not (head.reads_forward and getattr(model_config, "is_encoder_decoder", False))
    return takes_it and type(model_config) in head.auto_class._model_mapping


def _no_such_head(model: ModelConfig, model_config: Any, fault: str) -> ConfigurationError:
    """The error for a head that a kind of model does not have, which names those that it has."""
    others = [
        name
        for name, head in HEAD_CLASSES.items()
        if name != model.head and _has_class(model, model_config, head)
    ]
    hint = f"set model.head={others[0]!r}, or take another model" if others else ANOTHER_MODEL
    return ConfigurationError(f"model.head: {fault}", hint)


def read_model_config(config: JobConfig, model_dir: Path, tokenizer: Any) -> Any:
    """Return the model's configuration, changed as the recipe asks.

    Raises NotAvailableError for a model that this library cannot compute, and ConfigurationError.
    """
    options = head_class(config.model.head).model_options(config.data.label_names)
    try:
        model_config = transformers.AutoConfig.from_pretrained(
            model_dir, trust_remote_code=config.model.trust_remote_code, **options
        )
    except Exception as error:  # the library's checks of a configuration raise errors of any kind
        raise unsupported(config, model_dir, error) from error
    model_config.pad_token_id = tokenizer.pad_token_id
    _set_residual_dropout(model_config, config.model.residual_dropout)
    _check_quantization(config.model, model_config)
    return model_config


def unsupported(config: JobConfig, model_dir: Path, error: Exception) -> NotAvailableError:
    """The error for a model that transformers cannot build from its configuration."""
    kind, name = _stored_config(model_dir).get("model_type"), config.model.name
    is_known = kind in transformers.models.auto.CONFIG_MAPPING
    if not is_known and not config.model.trust_remote_code:
        return NotAvailableError(
            f"model {name}: transformers {transformers.__version__} does not know the model type "
            f"{kind!r} in its config.json",
            "take a newer transformers, or another model",
        )
    return NotAvailableError(f"model {name}: its config.json is not valid: {first_line(error)}")


def source_labels(model_dir: Path) -> list[str]:
    """The label names that a checkpoint's configuration gives, in the order of its outputs."""
    stored = _stored_config(model_dir)
    names, numbers = stored.get("id2label"), stored.get("label2id")
    if isinstance(names, dict) and all(str(number).isdecimal() for number in names):
        return [str(names[number]) for number in sorted(names, key=int)]
    if isinstance(numbers, dict) and all(isinstance(number, int) for number in numbers.values()):
        return sorted(numbers, key=lambda name: int(numbers[name]))
    return []


def is_quantized(model_config: Any) -> bool:
    """Whether the checkpoint itself holds quantised weights."""
    return getattr(model_config, "quantization_config", None) is not None


def compute_dtype(model: ModelConfig, model_config: Any, device: torch.device) -> torch.dtype:
    """Return the data type of matrix products; "auto" depends on model and device."""
    if model.compute_dtype != "auto":
        return DTYPES[model.compute_dtype]
    if device.type == "cpu":  # AMX multiplies bfloat16; CPUs without AMX were not measured
        is_wide = getattr(model_config.get_text_config(), "hidden_size", 0) >= CPU_BFLOAT16_WIDTH
        return torch.bfloat16 if is_wide and torch.cpu._is_amx_tile_supported() else torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def max_length(model: ModelConfig, model_config: Any, tokenizer: Any) -> int:
    """Return the longest input in tokens. Raises ConfigurationError if max_length exceeds it."""
    context = None
    with suppress(NotImplementedError):  # of models without such a limit
        context = getattr(model_config.get_text_config(), "max_position_embeddings", None)
    limit = min(context or tokenizer.model_max_length, tokenizer.model_max_length)
    if model.max_length is None:
        return int(limit)
    if model.max_length > limit:
        raise ConfigurationError(
            f"model.max_length: {model.max_length:,} is more than the model's {limit:,} tokens"
        )
    return model.max_length


def _head_modules(config: JobConfig, model: Any) -> tuple[str, ...]:
    transformer = transformer_of(model)
    children = [(name, child) for name, child in model.named_children() if name != transformer]
    if not transformer:
        return tuple(name for name, child in children if isinstance(child, LINEAR))
    heads = [name for name, child in children if list(child.parameters())]
    pooler = getattr(model.get_submodule(transformer), "pooler", None)
    if head_class(config.model.head).trains_head and isinstance(pooler, nn.Module):
        heads.append(f"{transformer}.pooler")
    return tuple(heads)


def _stored_config(model_dir: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    return stored


def _check_quantization(model: ModelConfig, model_config: Any) -> None:
    """Raise an error where a quantised checkpoint is not held as the recipe says."""
    if not is_quantized(model_config):
        return
    stored = model_config.quantization_config
    stored = stored if isinstance(stored, dict) else stored.to_dict()
    if stored.get("load_in_4bit") and stored.get("bnb_4bit_quant_type") == "nf4":
        if model.quantization == "nf4":
            return
        raise ConfigurationError(
            f"model.quantization: {model.name} holds 4-bit weights already",
            'set model.quantization="nf4", or take the model that was quantised',
        )
    raise NotAvailableError(
        f"model {model.name} is quantised already, by {stored.get('quant_method', 'some method')}",
        "take the model that was quantised, or one in bitsandbytes' 4-bit NF4",
    )


def _set_residual_dropout(model_config: Any, probability: float | None) -> None:
    if probability is None:
        return
    keys = [key for key in RESIDUAL_DROPOUT_KEYS if hasattr(model_config, key)]
    if not keys and probability > 0:
        raise ConfigurationError(
            f"model.residual_dropout: {model_config.model_type} models have no residual dropout"
        )
    for key in keys:
        setattr(model_config, key, probability)
