"""What adapters with dropout add to the gradient of their input.

One kernel on a GPU with tensor cores, for ranks of whole tiles; elsewhere a product and a sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nlijob.gpu.fast import kernels
from nlijob.gpu.fast.cuda import Source
from nlijob.gpu.fast.fused_attention import TILE, has_tiles

SOURCE = Source("low_rank.cu", "tiles.cu")
SPAN, LINE = 32, 40
"""Columns of a block, and values of a row in its shared memory, as the source has them."""
WARPS = 2
"""Warps in a block, each with a tile of tokens."""
MAX_RANKS = 256
"""Ranks of all adapters together whose As fit into a block's shared memory on any GPU."""


def compile_kernel(device: torch.device, dtype: torch.dtype, rank: int) -> None:
    """Compile the kernel, where the device has one. Raises Unsupported."""
    if device.type == "cuda" and _is_supported(device, dtype, rank):
        SOURCE.compile(device, dtype, RANK=rank)


def add(into: Tensor, inner: Tensor, a: Tensor, kept: Tensor, scale: float) -> None:
    """Add to `into` [tokens, width] the products inner a of all adapters, times `kept` and `scale`.

    inner: [tokens, adapters * rank], the gradients of the inner values, side by side. a: [adapters,
    rank, width]. kept: [adapters, tokens, width], bytes: 1 where dropout kept a value, and 0.
    """
    adapters, rank, width = a.shape
    is_small = adapters * rank <= MAX_RANKS
    if into.is_cuda and is_small and _is_supported(into.device, into.dtype, rank):
        blocks = (-(-len(into) // (WARPS * TILE)), -(-width // SPAN))
        given = (inner, inner.stride(0), a, a.stride(0), a.stride(1), kept, scale)
        sizes = (adapters, len(into), width)
        SOURCE.launch(
            "add_low_rank",
            blocks,
            32 * WARPS,
            into,
            into.stride(0),
            *given,
            *sizes,
            shared_bytes=2 * adapters * rank * LINE,
            RANK=rank,
        )
        return
    by_adapter = inner.view(len(inner), adapters, rank).transpose(0, 1)
    kernels.add_kept(into, torch.bmm(by_adapter, a), kept, scale)


def _is_supported(device: torch.device, dtype: torch.dtype, rank: int) -> bool:
    return rank % TILE == 0 and has_tiles(device, dtype)
