"""Faster layers for the plain loop on a CPU, and the free memory of a device."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import psutil
import torch
from torch import nn

from nlijob.gpu.fast.dropout import HostDropout
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.layers import FastDense, LayerPatches, dequantized

MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""A container's memory limit, in bytes or "max"."""
GIB = 2**30
KEPT_FREE_BYTES = GIB
"""Memory kept free for activations where weights are held a second time."""


def speed_up_plain_layers(model: nn.Module, dense: bool) -> LayerPatches:
    """Replace the layers that take a CPU longest by faster ones with the same results.

    Returns what restores them.

    Dropout then draws as `dropout.mask` does. `dense`: dequantise 4-bit weights once and for all,
    to the values that their layers would compute at each use.
    """
    patches = LayerPatches()
    for layer in list(model.modules()):
        if dense and isinstance(layer, bnb.nn.Linear4bit):
            weight = dequantized(layer.weight.data, layer.weight.quant_state)
            bias = None if layer.bias is None else layer.bias.detach().to(weight.dtype)
            patches.apply(layer, FastDense, fast_weight=weight, fast_bias=bias)
        elif type(layer) is nn.Dropout and layer.p < 1:
            patches.apply(layer, HostDropout)
    return patches


def check_copy_fits(linears: Iterable[Any], device: torch.device, dtype: torch.dtype) -> None:
    """Raise Unsupported where the device has no room to hold weights a second time.

    `linears`: the linear layers of the weights; those in 4 bits are counted elsewhere, as every
    fast mode dequantises them.
    """
    sizes = (layer.weight.numel() for layer in linears if not isinstance(layer, bnb.nn.Linear4bit))
    needed, free = sum(sizes) * dtype.itemsize, free_bytes(device)
    if needed and needed + KEPT_FREE_BYTES > free:
        raise Unsupported(
            f"they hold the weights a second time, in {needed / GIB:.1f} GiB, and "
            f"{free / GIB:.1f} GiB are free"
        )


def free_bytes(device: torch.device) -> int:
    """Unused memory of a GPU, or for a CPU of the host or container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = _available_bytes()
    limit = MEMORY_LIMIT.read_text(encoding="utf-8").strip() if MEMORY_LIMIT.is_file() else "max"
    if limit != "max":
        free = min(free, int(limit) - psutil.Process().memory_info().rss)
    return free


def _available_bytes() -> int:
    """Memory of the machine that can be taken; where /proc is not readable, what is unused."""
    try:
        return int(psutil.virtual_memory().available)
    except (psutil.Error, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
