"""The model's configuration and its modules, both without weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from nlijob.config import JobConfig, ModelConfig
from nlijob.errors import ConfigurationError, NotAvailableError
from nlijob.gpu.heads import head_class
from nlijob.gpu.model.targets import check_targets

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
    """Modules beside the transformer, such as "lm_head" or "score", which are not quantised."""


def meta_model(config: JobConfig, model_config: Any) -> MetaModel:
    """Build the model on the meta device, from its configuration alone.

    Raises ConfigurationError if a LoRA target matches no linear module, and names those there are.
    """
    with torch.device("meta"):
        model = head_class(config.model.head).auto_class.from_config(model_config)
    prefix = model.base_model_prefix
    heads = tuple(
        name
        for name, child in model.named_children()
        if name != prefix and list(child.parameters())
    )
    check_targets(model, config.lora.target_modules)
    return MetaModel(model_config, model, heads)


def read_model_config(config: JobConfig, model_dir: Path, tokenizer: Any) -> Any:
    """Return the model's configuration, changed as the recipe asks."""
    options = head_class(config.model.head).model_options(config.data.label_names)
    try:
        model_config = transformers.AutoConfig.from_pretrained(model_dir, **options)
    except (ValueError, OSError) as error:
        raise NotAvailableError(f"model {config.model.name}: {error}") from error
    model_config.pad_token_id = tokenizer.pad_token_id
    _set_residual_dropout(model_config, config.model.residual_dropout)
    return model_config


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
