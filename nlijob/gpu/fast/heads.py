"""Attention from a pack's queries, keys and values as a product leaves them, and the way back.

Rows of up to MOST_TOKENS tokens take one kernel of our own each way; others take one for bias and
rotation and torch's attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlijob.gpu.fast import kernels
from nlijob.gpu.fast.attention import attend
from nlijob.gpu.fast.cuda import Source

MOST_TOKENS = 128
MOST_HEAD = 128
TILE = 16
"""Rows of a warp's matrices."""
SOURCE = Source(
    "attention.cu",
    {"attend": "plpppp" + "f" + "pp" + "il", "attend_backward": "plpppp" + "f" + "ppp" + "il"},
)


@dataclass(frozen=True)
class Pack:
    """What the layers need to know of a pack."""

    cosine: Tensor
    """[tokens, half]: of the angles that the first 2 * half values of a head are turned by."""
    sine: Tensor
    bounds: Tensor
    """[segments + 1], int32"""
    longest: int
    head: int
    """Width of an attention head."""
    scaling: float
    last: Tensor
    """[rows], int64: the tokens whose values are asked for."""


@dataclass(frozen=True)
class Attended:
    """What attention gave, and what the way back needs."""

    out: Tensor
    """[tokens, width]"""
    logs: Tensor | None = None
    """[heads, tokens]: of each query's sum of exponentials, where our own kernel computed."""
    graph: tuple[Tensor, Sequence[Tensor]] | None = None
    """Else torch's output, and the query, key and value that its gradient is taken of."""


def forward(y: Tensor, bias: Tensor, pack: Pack, keep: bool) -> Attended:
    """Attention of y [tokens, 3 width]: query, key and value, side by side.

    Where our own kernel does not serve, y gets its bias and is rotated in place. `keep`: the way
    back follows, with y as this leaves it.
    """
    if _own_kernel_serves(y, pack):
        tokens, width = len(y), y.shape[1] // 3
        out = y.new_empty(tokens, width)
        logs = y.new_empty(width // pack.head, tokens, dtype=torch.float32)
        _launch("attend", 3, y, bias, pack, out, logs)
        return Attended(out, logs)
    kernels.bias_rotate(y, bias, pack.cosine, pack.sine, pack.head)
    # .data: what the way back later writes over these values must not look like a fault
    parts = y.data.view(len(y), 3, -1, pack.head).unbind(1)
    with torch.set_grad_enabled(keep):
        parts = tuple(part.requires_grad_(keep) for part in parts)
        query, key, value = parts
        out = attend(query, key, value, pack.bounds, pack.longest, pack.scaling)
    return Attended(out.detach().flatten(1), graph=(out, parts) if keep else None)


def backward(attended: Attended, grad: Tensor, y: Tensor, bias: Tensor, pack: Pack) -> None:
    """Turn y into its gradient, of the gradient of what `forward` gave [tokens, width]."""
    if attended.logs is not None:
        _launch("attend_backward", 4, y, bias, pack, attended.out, attended.logs, grad)
        return
    assert attended.graph
    out, parts = attended.graph
    of_parts = torch.autograd.grad(out, parts, grad.view_as(out))
    kernels.rotate_back(of_parts, pack.cosine, pack.sine, y, pack.head)


def _own_kernel_serves(y: Tensor, pack: Pack) -> bool:
    return (
        y.is_cuda
        and y.dtype in (torch.bfloat16, torch.float16)
        and pack.longest <= MOST_TOKENS
        and pack.head <= MOST_HEAD
        and pack.head % TILE == 0
        and torch.cuda.get_device_capability(y.device) >= (8, 0)
    )


def _launch(name: str, matrices: int, y: Tensor, bias: Tensor, pack: Pack, *values: Tensor) -> None:
    """`matrices`: those of a segment that are in shared memory, beside two numbers a row."""
    width = y.shape[1] // 3
    tiles = -(-pack.longest // TILE)
    given = (y, y.stride(0), bias, pack.cosine, pack.sine, pack.bounds, pack.scaling)
    SOURCE.launch(
        name,
        (len(pack.bounds) - 1, width // pack.head),
        32 * tiles,
        *given,
        *values,
        width,
        len(y),
        shared_bytes=tiles * TILE * (matrices * (pack.head + 8) * y.element_size() + 8),
        HEAD=pack.head,
        HALF=pack.cosine.shape[1],
    )
