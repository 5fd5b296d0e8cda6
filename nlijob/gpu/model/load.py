"""Loads the quantised base model once, with its adapter on top.

The base model is the same model with its adapter disabled (`model.disable_adapter()`).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from torch import Tensor, nn

from nlijob import records
from nlijob.config import JobConfig
from nlijob.errors import ConfigurationError, HardwareError, NotAvailableError, first_line
from nlijob.gpu.heads import head_class
from nlijob.gpu.model.attention import register_float32_attention
from nlijob.gpu.model.configuration import (
    MetaModel,
    compute_dtype,
    is_quantized,
    max_length,
    meta_model,
    read_model_config,
    source_labels,
)
from nlijob.gpu.model.finite import not_finite
from nlijob.gpu.model.quantize import (
    adopt_quantization,
    check_memory,
    keep_cpu_weights_trainable,
    quantization_config,
    unquantized_modules,
)
from nlijob.gpu.model.weights import (
    Loading,
    check_finite,
    check_shapes,
    check_weights,
    lacking,
    settle_head,
)
from nlijob.gpu.quantized import HEAD_FILE, BaseModel, QuantizedCopy
from nlijob.heads.label_order import label_order
from nlijob.memory import is_out_of_memory
from nlijob.model_files import weight_files
from nlijob.records.job import HeadOrigin


@dataclass(frozen=True)
class LoadedModel:
    """The quantised base model with its adapter, ready on its device."""

    model: Any
    tokenizer: Any
    device: torch.device
    compute_dtype: torch.dtype
    max_length: int
    head: HeadOrigin | None = None
    """Where the head's weights come from."""
    targets: tuple[str, ...] = ()
    """The modules that LoRA adapts, as names or ends of names."""
    unquantized: tuple[str, ...] = ()
    """The linear modules whose weights are not in 4 bits where others are, as ends of names."""


def load(
    config: JobConfig,
    model_dir: Path,
    tokenizer: Any,
    device: torch.device,
    copy: QuantizedCopy | None = None,
    meta: MetaModel | None = None,
    dtype: torch.dtype | None = None,
) -> LoadedModel:
    """Read and quantise the model, move it to the device, and add the adapter.

    `copy`: the quantised copy on disk, read if it exists and written if that will save time.
    `meta`: the model without weights, if it was built already. `dtype`: that of matrix products,
    where the model will be computed on another device. Raises ConfigurationError (targets, head),
    NotAvailableError (weights) and HardwareError.
    """
    meta = meta or meta_model(config, read_model_config(config, model_dir, tokenizer))
    dtype = dtype or compute_dtype(config.model, meta.config, device)
    if dtype is torch.float16:
        meta.config._attn_implementation = register_float32_attention()
    check_memory(meta, config.model, dtype, device)
    torch.manual_seed(config.train.seed)  # initialises a new head
    base = _base_model(config, model_dir, meta, dtype, device, copy)
    model = base.model
    keep_cpu_weights_trainable(model)
    unquantized = unquantized_modules(model)
    model.config.use_cache = False
    torch.manual_seed(config.train.seed)  # initialises the adapter, after a resume too
    adapted = add_adapter(config, model, trained_modules(base.head), meta.targets)
    longest = max_length(config.model, meta.config, tokenizer)
    return LoadedModel(
        adapted,
        tokenizer,
        device,
        dtype,
        longest,
        base.head,
        meta.targets,
        unquantized,
    )


def trained_modules(head: HeadOrigin) -> tuple[str, ...]:
    """The modules of a trained head. A pooler within the transformer is one if it is new."""
    return tuple(name for name in head.modules if "." not in name or name in head.new)


def add_adapter(
    config: JobConfig, model: Any, head_modules: tuple[str, ...], targets: Sequence[str]
) -> Any:
    """Return the model with LoRA on its targets and a trained copy of its head, if it is trained.

    `targets`: names of modules, or ends of names. Raises ConfigurationError for targets that cannot
    be adapted.
    """
    head = head_class(config.model.head)
    settings = peft.LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=list(targets),
        modules_to_save=list(head_modules) if head.trains_head else None,
        task_type=head.peft_task_type,
    )
    try:
        adapted = peft.get_peft_model(model, settings)
    except ValueError as error:  # such as targets within a head that is trained in full anyway
        raise ConfigurationError(
            f"lora.target_modules: PEFT cannot adapt {', '.join(targets)}: {first_line(error)}"
        ) from error
    for module in adapted.modules():
        if isinstance(module, peft.utils.ModulesToSaveWrapper):
            _train_in_float32(module.modules_to_save["default"])
    return adapted


def replace_adapter(loaded: LoadedModel, config: JobConfig, targets: Sequence[str]) -> LoadedModel:
    """The same base model with a new adapter in place of the one that it has.

    A trained head is again as it was loaded. Raises ConfigurationError as `add_adapter`.
    """
    heads = {
        name: module.original_module
        for name, module in loaded.model.get_base_model().named_modules()
        if isinstance(module, peft.utils.ModulesToSaveWrapper)
    }
    base = loaded.model.unload()
    for name, head in heads.items():  # the library leaves the trained one in its place
        base.set_submodule(name, head)
    trained = trained_modules(loaded.head) if loaded.head else ()
    adapted = add_adapter(config, base, trained, targets)
    return dataclasses.replace(loaded, model=adapted, targets=tuple(targets))


def _base_model(
    config: JobConfig,
    model_dir: Path,
    meta: MetaModel,
    dtype: torch.dtype,
    device: torch.device,
    copy: QuantizedCopy | None,
) -> BaseModel:
    quantization = None
    if is_quantized(meta.config):
        adopt_quantization(meta, dtype, head_class(config.model.head).trains_head)
    else:
        quantization = quantization_config(config.model, dtype, meta.unquantized)
    read = functools.partial(_read_weights, config, dtype, device)
    make = functools.partial(_original, config, model_dir, meta, read, quantization)
    if copy is None or quantization is None:
        return make()
    quantized = deepcopy(meta.config)
    quantized.quantization_config = quantization.to_dict()

    def read_copy(folder: Path) -> BaseModel:
        model, loading = read(folder, quantized)
        check_weights(model, loading)
        return BaseModel(model, records.read(HeadOrigin, folder / HEAD_FILE))

    base = copy.read(read_copy)
    return copy.create(make) if base is None else base


def _original(
    config: JobConfig,
    model_dir: Path,
    meta: MetaModel,
    read: Callable[..., tuple[Any, Loading]],
    quantization: Any,
) -> BaseModel:
    """Load the model from its own files, quantise it, and settle its head."""
    labels = label_order(config.data, source_labels(model_dir))
    files = weight_files(model_dir)
    if not is_quantized(meta.config):
        check_shapes(meta, files)
    with ThreadPoolExecutor(1) as pool:
        bad = pool.submit(not_finite, files)
        try:
            model, loading = read(model_dir, meta.config, quantization_config=quantization)
        except NotAvailableError as error:
            raise NotAvailableError(error.message + lacking(meta, files), error.hint) from error
        trained = head_class(config.model.head).trains_head
        origin = settle_head(model, loading, meta, trained, labels, config.train.seed)
        check_finite(config.model.name, bad.result(), loading.unexpected)
    return BaseModel(model, origin)


def _read_weights(
    config: JobConfig,
    dtype: torch.dtype,
    device: torch.device,
    model_dir: Path,
    model_config: Any,
    **options: Any,
) -> tuple[Any, Loading]:
    """Return the model, and what the library says about its weights, for others to judge."""
    place = "cpu" if device.type == "cpu" else device.index or 0
    try:
        model, info = head_class(config.model.head).auto_class.from_pretrained(
            model_dir,
            config=model_config,
            dtype=dtype,
            device_map={"": place},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=config.model.trust_remote_code,
            **options,
        )
    except Exception as error:  # of many kinds, from the libraries that read files
        if is_out_of_memory(error):
            raise HardwareError(
                f"the model does not fit into memory: {first_line(error)}"
            ) from error
        raise NotAvailableError(
            f"model {config.model.name} cannot be loaded: {first_line(error)}"
        ) from error
    return model, Loading.of(model, info)


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
