"""Counts parameters in both common ways, so that published figures can be compared.

logical: every weight counts once. packed: stored elements, so that a 4-bit weight counts half
because two share a byte (the sum of `p.numel()` over a quantised model).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import bitsandbytes as bnb
from torch import nn

from nlijob.gpu.model import is_target
from nlijob.records.job import ParameterCounts


def count_parameters(model: Any, targets: Sequence[str]) -> ParameterCounts:
    """Return the counts of a PEFT model; `targets` are the names of its LoRA modules."""
    quantized = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    four_bit = {id(m.weight): m.in_features * m.out_features for m in quantized}
    adapted = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    logical = packed = trainable = lora = 0
    for name, parameter in model.named_parameters():
        size = four_bit.get(id(parameter), parameter.numel())
        logical += size
        packed += (size + 1) // 2 if id(parameter) in four_bit else size
        trainable += size if parameter.requires_grad else 0
        lora += size if ".lora_" in name else 0
    return ParameterCounts(
        trainable=trainable,
        total_logical=logical,
        total_packed=packed,
        lora_parameters=lora,
        head_parameters=trainable - lora,
        matched_modules={t: sum(is_target(name, t) for name in adapted) for t in targets},
        quantized_modules=len(quantized),
        base_memory_bytes=base_memory_bytes(model),
    )


def is_double_quantized(model: nn.Module) -> bool | None:
    """Return whether the constants of 4-bit weights are quantised; None without such weights."""
    states = list(_states(model))
    return any(state.nested for state in states if state) if states else None


def base_memory_bytes(model: nn.Module) -> int:
    """Return the bytes of the frozen weights with their quantisation constants."""
    frozen = [p for p in model.parameters() if not p.requires_grad]
    weights = sum(parameter.numel() * parameter.element_size() for parameter in frozen)
    return weights + sum(_constants_bytes(state) for state in _states(model))


def _states(model: nn.Module) -> Iterator[Any]:
    """What is kept beside each 4-bit weight; of a divided weight (DTensor) the module has it."""
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            yield getattr(module.weight, "quant_state", None) or module.quant_state


def _constants_bytes(state: Any) -> int:
    if state is None:
        return 0
    tensors = [t for name in ("absmax", "code") if (t := getattr(state, name, None)) is not None]
    own: int = sum(t.numel() * t.element_size() for t in tensors)
    return own + _constants_bytes(getattr(state, "state2", None))
