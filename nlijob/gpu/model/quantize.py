"""The settings of 4-bit weights, and the memory that weights take."""

from __future__ import annotations

import torch
import transformers
from bitsandbytes.nn import Linear4bit
from torch import nn

from nlijob.config import ModelConfig
from nlijob.errors import HardwareError
from nlijob.gpu.model.configuration import MetaModel
from nlijob.gpu.model.structure import LINEAR, is_within
from nlijob.gpu.model.targets import shortest_ends

GIB = 1024**3


def quantization_config(
    model: ModelConfig, dtype: torch.dtype, unquantized: tuple[str, ...]
) -> transformers.BitsAndBytesConfig | None:
    """Return settings for NF4 (Dettmers et al., 2023, QLoRA) in all linear modules but some."""
    if model.quantization == "none":
        return None
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=model.double_quantization,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(unquantized),
    )


def unquantized_modules(model: nn.Module) -> tuple[str, ...]:
    """The linear modules whose weights are not in 4 bits where others are, as ends of names.

    The library's own list of modules to leave out is read in the same way.
    """
    linear = {name: m for name, m in model.named_modules() if isinstance(m, LINEAR)}
    in_full = [name for name, module in linear.items() if not isinstance(module, Linear4bit)]
    return () if len(in_full) == len(linear) else shortest_ends(in_full, linear, str.endswith)


def adopt_quantization(meta: MetaModel, dtype: torch.dtype, trains_head: bool) -> None:
    """Set up a checkpoint that is quantised already: compute in `dtype`, hold the head in full."""
    stored = meta.config.quantization_config
    stored = dict(stored if isinstance(stored, dict) else stored.to_dict())
    stored["bnb_4bit_compute_dtype"] = str(dtype).removeprefix("torch.")
    if trains_head:
        skipped = stored.get("llm_int8_skip_modules") or []
        stored["llm_int8_skip_modules"] = [*skipped, *meta.head_modules]
    meta.config.quantization_config = stored


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
        four_bit = model.quantization == "nf4" and type(module) in LINEAR
        four_bit = four_bit and not is_within(name, meta.head_modules)
        four_bit = four_bit and not name.endswith(meta.passed_by)
        for key, parameter in module.named_parameters(recurse=False):
            size = parameter.numel() * dtype.itemsize
            largest = max(largest, size)
            total += parameter.numel() // 2 if four_bit and key == "weight" else size
    return total + largest


def keep_cpu_weights_trainable(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking weights for inference, which breaks training afterwards.

    It does so in evaluation mode on CPUs with AVX512-BF16.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 (not an attribute of nn.Module)
