"""The settings of 4-bit weights, and the memory that weights take."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import transformers
from bitsandbytes.nn import Linear4bit
from torch import nn

from nlijob.config import ModelConfig
from nlijob.errors import HardwareError
from nlijob.gpu.model.configuration import MetaModel
from nlijob.gpu.model.structure import LINEAR, is_within, layer_of
from nlijob.gpu.model.targets import shortest_ends

GIB = 1024**3
BLOCK, BLOCK_OF_CONSTANTS = 64, 256
"""Weights that share a constant, and constants that share one, in bitsandbytes."""


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
    for _, parameter, four_bit in _weights(meta, model):
        size = parameter.numel() * dtype.itemsize
        largest = max(largest, size)
        total += parameter.numel() // 2 if four_bit else size
    return total + largest


@dataclass(frozen=True)
class HeldWeights:
    """The memory that the base weights take once they are loaded, in bytes."""

    four_bit: int
    """All weights that are held in 4 bits, with their constants."""
    others: int
    """All other weights; one that is tied to another counts once."""
    largest_layer: int
    """The largest of the repeated layers, as held."""
    largest_dequantized: int
    """The largest weight that is held in 4 bits, in the compute dtype."""
    largest_outside: int
    """The largest weight outside of the repeated layers, such as the embedding."""


def held_weights(meta: MetaModel, model: ModelConfig, dtype: torch.dtype) -> HeldWeights:
    """Return what the base weights take, by what is done with them."""
    four_bit = others = largest_dequantized = largest_outside = 0
    layers: Counter[str] = Counter()
    seen: set[int] = set()
    for name, parameter, is_four_bit in _weights(meta, model):
        if id(parameter) in seen:
            continue
        seen.add(id(parameter))
        in_full = parameter.numel() * dtype.itemsize
        held = four_bit_bytes(parameter.numel(), model.double_quantization)
        size = held if is_four_bit else in_full
        if is_four_bit:
            four_bit += size
            largest_dequantized = max(largest_dequantized, in_full)
        else:
            others += size
        if layer := layer_of(name):
            layers[layer] += size
        else:
            largest_outside = max(largest_outside, size)
    largest_layer = max(layers.values(), default=0)
    return HeldWeights(four_bit, others, largest_layer, largest_dequantized, largest_outside)


def four_bit_bytes(weights: int, is_double: bool) -> int:
    """Return the memory of NF4 weights with their constants, in bytes.

    Each block of 64 has a float32 constant. With double quantisation (Dettmers et al., 2023, QLoRA)
    it has one byte, and each 256 such bytes have a float32.
    """
    blocks = math.ceil(weights / BLOCK)
    constants = blocks + 4 * math.ceil(blocks / BLOCK_OF_CONSTANTS) if is_double else 4 * blocks
    return weights // 2 + constants


def _weights(meta: MetaModel, model: ModelConfig) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """The module's name, the weight, and whether it is held in 4 bits."""
    for name, module in meta.model.named_modules():
        four_bit = model.quantization == "nf4" and type(module) in LINEAR
        four_bit = four_bit and not is_within(name, meta.head_modules)
        four_bit = four_bit and not name.endswith(meta.passed_by)
        for key, parameter in module.named_parameters(recurse=False):
            yield name, parameter, four_bit and key == "weight"


def keep_cpu_weights_trainable(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking weights for inference, which breaks training afterwards.

    It does so in evaluation mode on CPUs with AVX512-BF16.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 (not an attribute of nn.Module)
