"""The model's configuration and its modules, both without weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from nlijob.config import JobConfig, ModelConfig
from nlijob.errors import ConfigurationError, NotAvailableError, first_line
from nlijob.gpu.heads import head_class
from nlijob.gpu.model.targets import check_targets
from nlijob.heads import describe

RESIDUAL_DROPOUT_KEYS = ("resid_pdrop", "residual_dropout", "hidden_dropout", "hidden_dropout_prob")
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


def meta_model(config: JobConfig, model_config: Any) -> MetaModel:
    """Build the model on the meta device, from its configuration alone.

    Raises ConfigurationError if there is no such model with the job's head, or if a LoRA target
    matches no linear module; then it names those there are. Raises NotAvailableError if the
    configuration is not valid.
    """
    auto_class = head_class(config.model.head).auto_class
    if type(model_config) not in auto_class._model_mapping:
        raise ConfigurationError(
            f"model.head: transformers has no {model_config.model_type} model with a "
            f"{describe(config.model.head).title}",
            "take another head or another model",
        )
    try:
        with torch.device("meta"):
            model = auto_class.from_config(model_config, trust_remote_code=False)
    except Exception as error:  # of any kind, from the model's own code
        raise NotAvailableError(
            f"model {config.model.name} cannot be built from its config.json: {first_line(error)}"
        ) from error
    check_targets(model, config.lora.target_modules)
    return MetaModel(model_config, model, _head_modules(config, model))


def read_model_config(config: JobConfig, model_dir: Path, tokenizer: Any) -> Any:
    """Return the model's configuration, changed as the recipe asks.

    Raises NotAvailableError for a model that this library cannot compute, and ConfigurationError.
    """
    options = head_class(config.model.head).model_options(config.data.label_names)
    try:
        model_config = transformers.AutoConfig.from_pretrained(
            model_dir, trust_remote_code=False, **options
        )
    except Exception as error:  # the library's checks of a configuration raise errors of any kind
        raise unsupported(config, model_dir, error) from error
    model_config.pad_token_id = tokenizer.pad_token_id
    _set_residual_dropout(model_config, config.model.residual_dropout)
    _check_quantization(config.model, model_config)
    return model_config


def unsupported(config: JobConfig, model_dir: Path, error: Exception) -> NotAvailableError:
    """The error for a model that transformers cannot build from its configuration."""
    stored = _stored_config(model_dir)
    kind, name = stored.get("model_type"), config.model.name
    if stored.get("auto_map") and kind not in transformers.models.auto.CONFIG_MAPPING:
        return NotAvailableError(
            f"model {name} is computed by code of its own ({kind}), which this job never runs",
            "take a model that transformers itself supports; trust_remote_code is not supported",
        )
    if kind not in transformers.models.auto.CONFIG_MAPPING:
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
    prefix = model.base_model_prefix
    heads = [
        name
        for name, child in model.named_children()
        if name != prefix and list(child.parameters())
    ]
    pooler = getattr(getattr(model, prefix, None), "pooler", None)
    if head_class(config.model.head).trains_head and isinstance(pooler, nn.Module):
        heads.append(f"{prefix}.pooler")
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
