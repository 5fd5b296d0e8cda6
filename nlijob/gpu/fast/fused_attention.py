"""Attention from a pack's queries, keys and values as a product leaves them, and the way back.

Rows of up to MOST_TOKENS tokens take one kernel of our own each way; others take one for bias and
rotation and torch's attention.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlijob.gpu.fast import kernels
from nlijob.gpu.fast.attention import attend
from nlijob.gpu.fast.cuda import Source
from nlijob.gpu.fast.prefix import Prefix, prefix_of

MOST_TOKENS = 128
MOST_HEAD = 128
MOST_SHARED_BYTES = 99 * 1024
"""Shared memory that a block may have on any GPU since Ampere."""
TILE = 16
"""Rows of a warp's matrices."""
LEAST_WARPS, MOST_WARPS = 4, 6
"""Of a block; more than these would have too few registers each."""
WARP = 32
SOURCE = Source(
    "attention.cu",
    {
        "attend": "plp" + "pll" + "pppp" + "if" + "pppili",
        "attend_backward": "pl" + "ppp" + "if" + "ppppp" + "il",
        "prefix_gradients": "pl" + "pp" + "iii",
    },
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
    shared: int = 0
    """Tokens of the prefix that all segments go on behind."""

    @functools.cached_property
    def prefix(self) -> Prefix | None:
        """For attention that is not our own."""
        return prefix_of(self.shared, self.bounds, len(self.cosine)) if self.shared else None


@dataclass(frozen=True)
class Attended:
    """What attention gave, and what the way back needs."""

    out: Tensor
    """[tokens, width]"""
    logs: Tensor | None = None
    """[heads, tokens]: of each query's sum of exponentials, where our own kernel computed."""
    rank: int = 0
    """Of the adapter that it was compiled for."""
    begun: Tensor | None = None
    """[prefix, 3 width]: the prefix's completed query, key and value; y has them as they were, for
    other rows to read."""
    graph: tuple[Tensor, Sequence[Tensor]] | None = None
    """Else torch's output, and the query, key and value that its gradient is taken of."""


def forward(
    y: Tensor, inner: Tensor, b: Tensor | None, bias: Tensor, pack: Pack, keep: bool, out: Tensor
) -> Attended:
    """Attention of y [tokens, 3 width]: query, key and value, side by side, without bias and not
    rotated yet, and of `inner` [tokens, 3 rank], as far apart: what an adapter's As made of the
    same input.

    `b`: the adapter's Bs [3, width, rank], or None for none. `keep`: the way back follows, for
    which query, key and value are completed in place. `out` [tokens, width] is where it goes.
    """
    width, rank = len(bias) // 3, 0 if b is None else b.shape[2]
    if _own_kernel_serves(y, pack, rank):
        logs = y.new_empty(width // pack.head, len(y), dtype=torch.float32)
        begun = y.new_empty(pack.shared, 3 * width) if keep else None
        adapter = (None, 0, 0) if b is None else (b, b.stride(0), b.stride(1))
        to = (out, logs, begun, width, len(y), int(keep))
        given = (inner, *adapter, bias, *_angles(pack), *to)
        _launch("attend", y, pack, width, rank, given, _shared_values(pack, rank))
        return Attended(out, logs, rank, begun)
    if b is not None:
        by_part = inner.view(len(y), 3, rank).transpose(0, 1)
        y.view(len(y), 3, width).transpose(0, 1).baddbmm_(by_part, b.transpose(1, 2))
    kernels.bias_rotate(y, bias, pack.cosine, pack.sine, pack.head)
    # .data: what the way back later writes over these values must not look like a fault
    parts = y.data.view(len(y), 3, -1, pack.head).unbind(1)
    with torch.set_grad_enabled(keep):
        parts = tuple(part.requires_grad_(keep) for part in parts)
        query, key, value = parts
        result = attend(query, key, value, pack.bounds, pack.longest, pack.scaling, pack.prefix)
    out.copy_(result.detach().flatten(1))
    return Attended(out, graph=(result, parts) if keep else None)


def backward(attended: Attended, grad: Tensor, y: Tensor, pack: Pack) -> None:
    """Turn y's query, key and value, as `forward` left them, into the gradients of what it was
    given, of the gradient of what it gave [tokens, width]."""
    width = grad.shape[1]
    if attended.logs is not None:
        shared, segments = pack.shared, len(pack.bounds) - 1
        asked = grad.new_empty(segments if shared else 0, shared, 2 * width, dtype=torch.float32)
        had = (attended.out, attended.logs, attended.begun)
        given = (*_angles(pack), *had, grad, asked, width, len(y))
        _launch("attend_backward", y, pack, width, attended.rank, given, _shared_values_back(pack))
        if shared:
            threads, defined = LEAST_WARPS * WARP, _defined(pack, attended.rank)
            blocks = (shared, -(-2 * width // (threads * kernels.EIGHT)))
            sums = (asked, pack.bounds, segments, shared, width)
            SOURCE.launch("prefix_gradients", blocks, threads, y, y.stride(0), *sums, **defined)
        return
    assert attended.graph
    out, parts = attended.graph
    of_parts = torch.autograd.grad(out, parts, grad.view_as(out))
    kernels.rotate_back(of_parts, pack.cosine, pack.sine, y, pack.head)


def _own_kernel_serves(y: Tensor, pack: Pack, rank: int) -> bool:
    values = max(_shared_values(pack, rank), _shared_values_back(pack))
    return (
        y.is_cuda
        and y.dtype in (torch.bfloat16, torch.float16)
        and pack.longest <= MOST_TOKENS
        and pack.head <= MOST_HEAD
        and pack.head % TILE == 0
        and rank % TILE == 0
        and _shared_bytes(pack, values) <= MOST_SHARED_BYTES
        and torch.cuda.get_device_capability(y.device) >= (8, 0)
    )


def _angles(pack: Pack) -> tuple[Any, ...]:
    return pack.cosine, pack.sine, pack.bounds, pack.shared, pack.scaling


def _shared_values(pack: Pack, rank: int) -> int:
    """Query, key and value, their angles and biases, and the adapter's part of one head."""
    for_token = 3 * (pack.head + 8) + 2 * pack.cosine.shape[1]
    return _tokens(pack) * for_token + 3 * pack.head * (rank + 9)


def _shared_values_back(pack: Pack) -> int:
    """Query, key and value, and the output's gradient."""
    return _tokens(pack) * 4 * (pack.head + 8)


def _shared_bytes(pack: Pack, values: int) -> int:
    """Of 16-bit values, and two numbers for each token."""
    return 2 * values + 8 * _tokens(pack)


def _tokens(pack: Pack) -> int:
    """Of the longest segment with the prefix, in whole tiles."""
    return -(-pack.longest // TILE) * TILE


def _launch(
    name: str, y: Tensor, pack: Pack, width: int, rank: int, given: tuple[Any, ...], values: int
) -> None:
    """A block for each head of each segment, with so many values in shared memory."""
    blocks = (len(pack.bounds) - 1, width // pack.head)
    size, defined = _shared_bytes(pack, values), _defined(pack, rank)
    SOURCE.launch(
        name, blocks, _threads(pack), y, y.stride(0), *given, shared_bytes=size, **defined
    )


def _threads(pack: Pack) -> int:
    """A warp for each tile of queries that the longest row has of its own, where that may be."""
    tiles = _tokens(pack) // TILE - pack.shared // TILE
    return WARP * min(max(tiles, LEAST_WARPS), MOST_WARPS)


def _defined(pack: Pack, rank: int) -> dict[str, int]:
    """What the kernels are compiled for."""
    half = pack.cosine.shape[1]
    return {"HEAD": pack.head, "HALF": half, "RANK": rank, "MOST_THREADS": WARP * MOST_WARPS}
