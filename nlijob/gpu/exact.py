"""A model whose weights are of 16 bits or fewer, computed in float32 for a moment.

This tells which of two results is closer to what the weights say, where both round.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

NARROW = (torch.bfloat16, torch.float16)


@contextlib.contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Let the model compute in float32; afterwards it is as before, to the bit.

    Only the weights of the module at work are held in float32, and 4-bit weights are dequantised to
    it, so that this needs little memory. No gradients.
    """
    narrow: dict[int, tuple[Tensor, Tensor]] = {}
    """The id of a tensor that is wide at present -> itself, and its own narrow values."""
    handles: list[Any] = []
    of_4_bits: list[tuple[Any, torch.dtype]] = []

    def widen(module: nn.Module, _: Any) -> None:
        for values in _tensors(module):
            if values.dtype in NARROW:
                narrow[id(values)] = values, values.data
                values.data = values.data.float()

    def restore(module: nn.Module, *_: Any) -> None:
        for values in _tensors(module):
            if id(values) in narrow:
                values.data = narrow.pop(id(values))[1]

    module: Any
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            of_4_bits.append((module, module.compute_dtype))
            module.compute_dtype = torch.float32
        if any(values.dtype in NARROW for values in _tensors(module)):
            handles.append(module.register_forward_pre_hook(widen))
            handles.append(module.register_forward_hook(restore))
    try:
        with torch.no_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for values, own in narrow.values():  # of modules that raised an error
            values.data = own
        for quantized, dtype in of_4_bits:
            quantized.compute_dtype = dtype


def _tensors(module: nn.Module) -> list[Tensor]:
    """The module's own weights and buffers."""
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]
