"""Loads the quantised base model once, with its adapter on top.

The base model is the same model with its adapter disabled (`model.disable_adapter()`).
"""

from __future__ import annotations

import functools
import logging
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from torch import Tensor, nn

from nlijob.config import JobConfig
from nlijob.errors import HardwareError, NotAvailableError
from nlijob.gpu.heads import head_class
from nlijob.gpu.model.attention import register_float32_attention
from nlijob.gpu.model.configuration import (
    MetaModel,
    compute_dtype,
    max_length,
    meta_model,
    read_model_config,
)
from nlijob.gpu.model.quantize import (
    check_memory,
    keep_cpu_weights_trainable,
    quantization_config,
)
from nlijob.gpu.quantized import QuantizedCopy


@dataclass(frozen=True)
class LoadedModel:
    """The quantised base model with its adapter, ready on its device."""

    model: Any
    tokenizer: Any
    device: torch.device
    compute_dtype: torch.dtype
    max_length: int


def load(
    config: JobConfig,
    model_dir: Path,
    tokenizer: Any,
    device: torch.device,
    copy: QuantizedCopy | None = None,
) -> LoadedModel:
    """Read and quantise the model, move it to the device, and add the adapter.

    `copy`: the quantised copy on disk, read if it exists and written if that will save time.
    Raises ConfigurationError (targets, head), NotAvailableError (weights) and HardwareError.
    """
    model_config = read_model_config(config, model_dir, tokenizer)
    meta = meta_model(config, model_config)
    dtype = compute_dtype(config.model, model_config, device)
    if dtype is torch.float16:
        model_config._attn_implementation = register_float32_attention()
    check_memory(meta, config.model, dtype, device)
    torch.manual_seed(config.train.seed)  # initialises a new head
    model = _base_model(config, model_dir, meta, dtype, device, copy)
    keep_cpu_weights_trainable(model)
    model.config.use_cache = False
    torch.manual_seed(config.train.seed)  # initialises the adapter, after a resume too
    adapted = add_adapter(config, model, meta.head_modules)
    return LoadedModel(
        adapted, tokenizer, device, dtype, max_length(config.model, model_config, tokenizer)
    )


def add_adapter(config: JobConfig, model: Any, head_modules: tuple[str, ...]) -> Any:
    """Return the model with LoRA on its targets and a trained copy of a new head."""
    head = head_class(config.model.head)
    adapted = peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=config.lora.r,
            lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout,
            target_modules=list(config.lora.target_modules),
            modules_to_save=list(head_modules) if head.is_new else None,
            task_type=head.peft_task_type,
        ),
    )
    for module in adapted.modules():
        if isinstance(module, peft.utils.ModulesToSaveWrapper):
            _train_in_float32(module.modules_to_save["default"])
    return adapted


def _base_model(
    config: JobConfig,
    model_dir: Path,
    meta: MetaModel,
    dtype: torch.dtype,
    device: torch.device,
    copy: QuantizedCopy | None,
) -> Any:
    read = functools.partial(_read_weights, config, dtype, device)
    quantization = quantization_config(config.model, dtype, meta.head_modules)
    make = functools.partial(read, model_dir, meta.config, quantization_config=quantization)
    if copy is None or quantization is None:
        return make()
    quantized = deepcopy(meta.config)
    quantized.quantization_config = quantization.to_dict()

    def read_copy(folder: Path) -> Any:
        model, info = read(folder, quantized, output_loading_info=True)
        if info["missing_keys"]:  # the library initialises these at random
            raise ValueError(f"{folder} is incomplete")
        return model

    model = copy.read(read_copy)
    return copy.create(make) if model is None else model


def _read_weights(
    config: JobConfig,
    dtype: torch.dtype,
    device: torch.device,
    model_dir: Path,
    model_config: Any,
    **options: Any,
) -> Any:
    place = "cpu" if device.type == "cpu" else device.index or 0
    head = head_class(config.model.head)
    try:
        return head.auto_class.from_pretrained(
            model_dir,
            config=model_config,
            dtype=dtype,
            device_map={"": place},
            ignore_mismatched_sizes=head.is_new,
            **options,
        )
    except torch.OutOfMemoryError as error:
        raise HardwareError(f"the model does not fit into the GPU's memory: {error}") from error
    except OSError as error:
        raise NotAvailableError(f"model {config.model.name}: {error}") from error


def _train_in_float32(head: nn.Module) -> None:
    """Hold a trained head in float32 and cast its inputs to float32."""
    head.float()
    for module in head.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(_cast_input)


def _cast_input(linear: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].to(next(linear.parameters()).dtype),)


def quiet_libraries() -> None:
    """Silence the libraries' notices, which are about deliberate choices, but not their errors."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
