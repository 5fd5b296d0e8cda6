"""What a CPU needs beside packed rows: easier layers where rows are not packed, and its memory."""

from __future__ import annotations

from pathlib import Path

import bitsandbytes as bnb
import psutil
import torch
from torch import nn

from nlijob.gpu.fast.dropout import HostDropout
from nlijob.gpu.fast.layers import FastDense, Installed, dequantized

MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""A container's own, in bytes or "max"."""


def ease(model: nn.Module, dense: bool) -> None:
    """Spare the libraries' own layers what takes a CPU longest; a model's outcome stays as it is.

    Dropout draws as `dropout.mask` does. `dense`: 4-bit weights are dequantised once, for good, to
    the values that their layers would make each time they are used.
    """
    installed = Installed()
    for layer in list(model.modules()):
        if dense and isinstance(layer, bnb.nn.Linear4bit):
            weight = dequantized(layer.weight.data, layer.weight.quant_state)
            bias = None if layer.bias is None else layer.bias.detach().to(weight.dtype)
            installed.put(layer, FastDense, fast_weight=weight, fast_bias=bias)
        elif type(layer) is nn.Dropout and layer.p < 1:
            installed.put(layer, HostDropout)


def free_bytes(device: torch.device) -> int:
    """Memory of a device, or of the host for a CPU, that nothing uses."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free: int = psutil.virtual_memory().available
    limit = MEMORY_LIMIT.read_text(encoding="utf-8").strip() if MEMORY_LIMIT.is_file() else "max"
    if limit != "max":
        free = min(free, int(limit) - psutil.Process().memory_info().rss)
    return free
