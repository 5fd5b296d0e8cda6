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
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from nlijob.config import JobConfig, ModelConfig
from nlijob.errors import ConfigurationError, HardwareError, NotAvailableError
from nlijob.gpu.heads import head_class
from nlijob.gpu.quantized import QuantizedCopy

GIB = 1024**3
FLOAT32_ATTENTION = "sdpa_float32"
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


@dataclass(frozen=True)
class LoadedModel:
    """The quantised base model with its adapter, ready on its device."""

    model: Any
    tokenizer: Any
    device: torch.device
    compute_dtype: torch.dtype
    max_length: int


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


def read_tokenizer(config: JobConfig, model_dir: Path) -> Any:
    """Return the model's tokenizer, with a padding token."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    except (ValueError, OSError) as error:
        raise NotAvailableError(f"tokenizer of {config.model.name}: {error}") from error
    if tokenizer.pad_token_id is None:
        # Any token will do, because padded positions are never read.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


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
        model_config._attn_implementation = _register_float32_attention()
    check_memory(meta, config.model, dtype, device)
    torch.manual_seed(config.train.seed)  # initialises a new head
    model = _base_model(config, model_dir, meta, dtype, device, copy)
    _keep_cpu_weights_trainable(model)
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


def is_target(name: str, target: str) -> bool:
    """Whether PEFT counts a module of this name among a target's."""
    return name == target or name.endswith(f".{target}")


def check_targets(model: nn.Module, targets: tuple[str, ...]) -> None:
    """Raise ConfigurationError if a target matches no module, which PEFT itself ignores."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    unmatched = [t for t in targets if not any(is_target(name, t) for name in linear)]
    if unmatched:
        last_names = sorted({name.rpartition(".")[2] for name in linear})
        raise ConfigurationError(
            f"lora.target_modules: no linear module of the model is named {' or '.join(unmatched)}",
            f"the model has {', '.join(last_names)}",
        )


def check_memory(
    meta: MetaModel, model: ModelConfig, dtype: torch.dtype, device: torch.device
) -> None:
    """Raise HardwareError if the base weights alone do not fit into the GPU's free memory."""
    if device.type != "cuda":
        return
    needed = weight_bytes(meta, model, dtype)
    free, total = torch.cuda.mem_get_info(device)
    if needed > free:
        raise HardwareError(
            f"out of memory: the model's weights need {needed / GIB:.1f} GiB, but only "
            f"{free / GIB:.1f} of the GPU's {total / GIB:.1f} GiB are free",
            "stop other programs on the GPU, or use a smaller model or a larger GPU",
        )


def weight_bytes(meta: MetaModel, model: ModelConfig, dtype: torch.dtype) -> int:
    """Return the memory that loading the base weights takes, in bytes.

    It is the sum of the weights as held, plus the largest one before it is quantised. A 4-bit
    weight takes half a byte. Its constants (1/64 of a float32 or less) are left out.
    """
    total = largest = 0
    for name, module in meta.model.named_modules():
        four_bit = model.quantization == "nf4" and isinstance(module, nn.Linear)
        four_bit = four_bit and name.split(".")[0] not in meta.head_modules
        for key, parameter in module.named_parameters(recurse=False):
            size = parameter.numel() * dtype.itemsize
            largest = max(largest, size)
            total += parameter.numel() // 2 if four_bit and key == "weight" else size
    return total + largest


# ---------------------------------------------------------------- detail


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


def quantization_config(
    model: ModelConfig, dtype: torch.dtype, head_modules: tuple[str, ...]
) -> transformers.BitsAndBytesConfig | None:
    """Return settings for NF4 (Dettmers et al., 2023, QLoRA) in all linear modules but the head."""
    if model.quantization == "none":
        return None
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=model.double_quantization,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(head_modules),
    )


def _keep_cpu_weights_trainable(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking weights for inference, which breaks training afterwards.

    It does so in evaluation mode on CPUs with AVX512-BF16.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 (not an attribute of nn.Module)


def _train_in_float32(head: nn.Module) -> None:
    """Hold a trained head in float32 and cast its inputs to float32."""
    head.float()
    for module in head.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(_cast_input)


def _cast_input(linear: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].to(next(linear.parameters()).dtype),)


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


def _register_float32_attention() -> str:
    """Register attention that computes in float32, as phi-2's scores overflow float16; return its
    name."""
    ALL_ATTENTION_FUNCTIONS.register(FLOAT32_ATTENTION, _float32_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(FLOAT32_ATTENTION, sdpa_mask)
    return FLOAT32_ATTENTION


def _float32_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    output, _ = sdpa_attention_forward(
        module, query.float(), key.float(), value.float(), attention_mask, **options
    )
    return output.to(query.dtype), None


def quiet_libraries() -> None:
    """Silence the libraries' notices, which are about deliberate choices, but not their errors."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
