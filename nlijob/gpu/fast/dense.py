"""4-bit weights kept dequantised: the layers of any model, and the memory that this takes."""

from __future__ import annotations

from pathlib import Path

import bitsandbytes as bnb
import psutil
import torch
from torch import nn

from nlijob.gpu.fast.layers import FastDense, Installed, dequantized

MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""A container's own, in bytes or "max"."""


def keep_dense(model: nn.Module) -> None:
    """Have the 4-bit layers of a model multiply with their values, dequantised once.

    They are those that the layers would make each time they are used, so outcomes stay as they are.
    """
    installed = Installed()
    for layer in list(model.modules()):
        if isinstance(layer, bnb.nn.Linear4bit):
            weight = dequantized(layer.weight.data, layer.weight.quant_state)
            bias = None if layer.bias is None else layer.bias.detach().to(weight.dtype)
            installed.put(layer, FastDense, fast_weight=weight, fast_bias=bias)


def free_bytes(device: torch.device) -> int:
    """Memory of a device, or of the host for a CPU, that nothing uses."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free: int = psutil.virtual_memory().available
    limit = MEMORY_LIMIT.read_text(encoding="utf-8").strip() if MEMORY_LIMIT.is_file() else "max"
    if limit != "max":
        free = min(free, int(limit) - psutil.Process().memory_info().rss)
    return free
