"""Attention of a pack straight from the projection's output, and its backward pass.

One kernel in each direction computes rows that fit into a block's shared memory: on an H100, of up
to 320 tokens with heads of 80, and 208 with heads of 128. `forward` and `backward` are for heads
with a bias and an adapter of one rank, which the kernel includes, like the rotary embedding;
`attend_heads` and `heads_backward` are for final heads, of which several queries may share keys and
values. Longer rows take torch's attention.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlijob.gpu.fast import kernels
from nlijob.gpu.fast.attention import AttentionKind, attend
from nlijob.gpu.fast.cuda import Source
from nlijob.gpu.fast.gated_kernels import HeadNorms, Heads, head_gradients, weights_of
from nlijob.gpu.fast.prefix import Prefix, make_prefix

MAX_HEAD = 128
MAX_SHARED_BYTES = 99 * 1024
"""Shared memory that a block can use on every GPU since Ampere; some have more."""
MIN_CAPABILITY = (8, 0)
"""Lowest compute capability with the instructions that the kernels use."""
KERNEL_DTYPES = (torch.bfloat16, torch.float16)
TILE = 16
"""Rows in a tile of the tensor cores."""
MIN_WARPS, MAX_WARPS = 4, 6
"""Warps in a block; with more of them, each would have too few registers."""
WARP = 32
SOURCE = Source("attention.cu", "tiles.cu")
HEADS_SOURCE = Source("heads.cu", "tiles.cu")
HEADS_WARPS = 4
"""Warps in a block of `finish_heads`, each with one head of a tile of tokens."""


@dataclass(frozen=True)
class PackLayout:
    """What attention needs to know about a pack."""

    cosine: Tensor
    """[tokens, half]: cosines of the rotary embedding, which rotates 2 * half values per head."""
    sine: Tensor
    """[tokens, half]"""
    bounds: Tensor
    """[segments + 1], int32: first token of each segment, and the end."""
    longest: int
    """Tokens of the longest segment, prefix included."""
    head: int
    """Width of an attention head."""
    scaling: float
    last: Tensor
    """[rows], int64: the tokens whose values the last layer returns."""
    shared: int = 0
    """Tokens of the shared prefix."""
    softcap: float | None = None
    """Limit of the scores, see `AttentionKind`; `attend_heads` alone observes it."""
    row_count: Tensor | None = None
    """[1], int32: number of segments that are rows, the first ones; the kernels write zeros for the
    others, which are filling. None: all are rows."""

    @functools.cached_property
    def prefix(self) -> Prefix | None:
        """The shared prefix in the form that torch's attention needs, or None."""
        return make_prefix(self.shared, self.bounds, len(self.cosine)) if self.shared else None


@dataclass(frozen=True)
class AttentionResult:
    """Output of attention, and what its backward pass needs."""

    out: Tensor
    """[tokens, width]"""
    logs: Tensor | None = None
    """[heads, tokens]: log-sum-exp of each query's scores, if a kernel of this project ran."""
    rank: int = 0
    """LoRA rank that the kernel was compiled for."""
    prefix_values: Tensor | None = None
    """[prefix, 3 width]: final query, key and value of the prefix. y keeps the original ones,
    which other rows still read."""
    graph: tuple[Tensor, Sequence[Tensor]] | None = None
    """Output, and query, key and value for its gradient, if torch's attention ran."""


def forward(
    y: Tensor,
    inner: Tensor,
    b: Tensor | None,
    bias: Tensor,
    pack: PackLayout,
    keep: bool,
    out: Tensor,
) -> AttentionResult:
    """Write the output of attention to out [tokens, width].

    y: [tokens, 3 width], query, key and value side by side, without bias and rotation. `inner`:
    [tokens, 3 rank], the input times the adapter's As, with the same row stride. `b`: the
    adapter's Bs [3, width, rank], or None without adapter. `keep`: a backward pass follows, and
    query, key and value in y become the final ones.
    """
    width, rank = len(bias) // 3, 0 if b is None else b.shape[2]
    if _kernel_supports(y, pack, rank):
        logs = y.new_empty(width // pack.head, len(y), dtype=torch.float32)
        prefix_values = y.new_empty(pack.shared, 3 * width) if keep else None
        adapter = (None, 0, 0) if b is None else (b, b.stride(0), b.stride(1))
        to = (out, logs, prefix_values, width, len(y), int(keep))
        given = (inner, *adapter, bias, *_angles(pack), *to)
        _launch("attend", y, pack, width, rank, given, _shared_values(pack, rank))
        return AttentionResult(out, logs, rank, prefix_values)
    if b is not None:
        by_part = inner.view(len(y), 3, rank).transpose(0, 1)
        y.view(len(y), 3, width).transpose(0, 1).baddbmm_(by_part, b.transpose(1, 2))
    kernels.bias_rotate(y, bias, pack.cosine, pack.sine, pack.head)
    # .data: autograd must not object when the backward pass later overwrites these values
    parts = y.data.view(len(y), 3, -1, pack.head).unbind(1)
    with torch.set_grad_enabled(keep):
        parts = tuple(part.requires_grad_(keep) for part in parts)
        query, key, value = parts
        result = attend(query, key, value, pack.bounds, pack.longest, pack.scaling, pack.prefix)
    out.copy_(result.detach().flatten(1))
    return AttentionResult(out, graph=(result, parts) if keep else None)


def backward(attended: AttentionResult, grad: Tensor, y: Tensor, pack: PackLayout) -> None:
    """Replace query, key and value in y by the gradient of `forward`'s input.

    `grad`: [tokens, width], gradient of the output. y: as `forward` left it.
    """
    width = grad.shape[1]
    if attended.logs is not None:
        shared, segments = pack.shared, len(pack.bounds) - 1
        d_prefix = grad.new_empty(segments if shared else 0, shared, 2 * width, dtype=torch.float32)
        had = (attended.out, attended.logs, attended.prefix_values)
        given = (*_angles(pack), *had, grad, grad.stride(0), d_prefix, None, width, len(y))
        _launch("attend_backward", y, pack, width, attended.rank, given, _shared_values_back(pack))
        if shared:
            threads, defined = MIN_WARPS * WARP, _defined(pack, attended.rank)
            blocks = (shared, -(-2 * width // (threads * kernels.VECTOR)))
            sums = (d_prefix, pack.bounds, segments, shared, width)
            SOURCE.launch("prefix_gradients", blocks, threads, y, y.stride(0), *sums, **defined)
        return
    assert attended.graph
    out, parts = attended.graph
    of_parts = torch.autograd.grad(out, parts, grad.view_as(out))
    kernels.rotate_back(of_parts, pack.cosine, pack.sine, y, pack.head)


# ---------------------------------------------------------------- final heads


@dataclass(frozen=True)
class HeadAdapters:
    """The adapters on query, key and value, of one rank."""

    rank: int
    b: Tensor
    """[columns of the heads, ranks]: each B beside its own columns."""
    begins: tuple[int, int, int]
    """First of the ranks of query's, key's and value's B, or -1 for none."""


def finishes_heads(y: Tensor, heads: Heads, rank: int) -> bool:
    """Whether `finish_heads` works on such a tensor."""
    return y.is_cuda and rank % TILE == 0 and _is_supported(y.device, y.dtype, heads.width)


def finish_heads(
    y: Tensor,
    adapters: HeadAdapters,
    bias: Tensor | None,
    norms: HeadNorms | None,
    cosine: Tensor,
    sine: Tensor,
    heads: Heads,
    out: Tensor,
) -> None:
    """Add the adapters' products to query, key and value, and then as `complete_heads`.

    y: [tokens, columns + ranks]: the heads and, after them, the products of their input with the
    As. With `norms`, y gets the sums of queries and of keys.
    """
    warps, size = HEADS_WARPS, (heads.queries, heads.keys, len(y))
    blocks = (-(-len(y) // TILE), -(-(heads.queries + 2 * heads.keys) // warps))
    of_b = (adapters.b, adapters.b.stride(0), *adapters.begins)
    given = (y[:, heads.columns :], *of_b, *weights_of(bias, norms), cosine, sine)
    to = (out, out.stride(0), *size)
    defined = _defined_heads(heads, 2 * cosine.shape[1], adapters.rank)
    HEADS_SOURCE.launch(
        "finish_heads", blocks, WARP * warps, y, y.stride(0), *given, *to, **defined
    )


def _defined_heads(heads: Heads, rotated: int, rank: int) -> dict[str, int]:
    return {"HEAD": heads.width, "HALF": rotated // 2, "RANK": rank}


def attend_heads(
    y: Tensor, heads: Heads, pack: PackLayout, keep: bool, out: Tensor
) -> AttentionResult:
    """Write attention's output to out [tokens, query width], for final heads in y.

    y: [tokens, heads.columns]; it must stay unchanged until the backward pass, if `keep` says that
    one follows.
    """
    if _kernel_supports_final(y, heads, pack):
        logs = y.new_empty(heads.queries, len(y), dtype=torch.float32)
        nothing = (None, None, 0, 0, None, None, None)
        given = (*nothing, *_segments(pack), out, logs, None, heads.query_width, len(y), 0)
        _launch_final("attend", y, heads, pack, given, _tokens(pack) * 3 * (pack.head + 8))
        return AttentionResult(out, logs)
    # .data: as in `forward`
    kind = AttentionKind(softcap=pack.softcap)
    with torch.set_grad_enabled(keep):
        parts = tuple(part.requires_grad_(keep) for part in heads.split(y.data))
        query, key, value = parts
        place = (pack.bounds, pack.longest, pack.scaling, pack.prefix)
        result = attend(query, key, value, *place, kind)
    out.copy_(result.detach().flatten(1))
    return AttentionResult(out, graph=(result, parts) if keep else None)


def heads_backward(
    attended: AttentionResult,
    grad: Tensor,
    final: Tensor,
    heads: Heads,
    pack: PackLayout,
    bias: Tensor | None,
    norms: HeadNorms | None,
    y: Tensor,
) -> None:
    """Write the gradient of `complete_heads`'s input to y, which has that input if there are norms.

    grad: [tokens, query width], gradient of `attend_heads`'s output. `final`: the heads that it
    read, which are overwritten; y may be the same tensor.
    """
    d_prefix: Tensor | None = None
    if attended.logs is not None:
        width, shared = heads.query_width, pack.shared
        d_own = grad.new_empty(len(y), 2 * width, dtype=torch.float32)
        segments = len(pack.bounds) - 1 if shared else 0
        d_prefix = grad.new_empty(segments, shared, 2 * width, dtype=torch.float32)
        had = (attended.out, attended.logs, None, grad, grad.stride(0))
        given = (None, None, *_segments(pack), *had, d_prefix, d_own)
        sizes = (width, len(y))
        values = _shared_values_back(pack)
        _launch_final("attend_backward", final, heads, pack, (*given, *sizes), values)
    else:
        assert attended.graph
        out, parts = attended.graph
        query, key, value = torch.autograd.grad(out, parts, grad.reshape(out.shape))
        final[:, : heads.query_width].copy_(query.flatten(1))
        d_own = torch.cat([key.flatten(1), value.flatten(1)], 1).float()
    angles = (pack.cosine, pack.sine)
    head_gradients(final, d_own, d_prefix, pack.bounds, bias, norms, *angles, heads, y)


def compile_final(
    device: torch.device, dtype: torch.dtype, heads: Heads, rotated: int, rank: int
) -> None:
    """Compile the kernels for final heads and those that make them, where the device has some.

    `rotated`: rotated values of a head. `rank`: of the adapters. Raises Unsupported.
    """
    if device.type == "cuda" and _is_supported(device, dtype, heads.width):
        SOURCE.compile(device, dtype, **_defined_final(heads))
        if rank % TILE == 0:
            HEADS_SOURCE.compile(device, dtype, **_defined_heads(heads, rotated, rank))


def _kernel_supports_final(y: Tensor, heads: Heads, pack: PackLayout) -> bool:
    return (
        y.is_cuda
        and _is_supported(y.device, y.dtype, heads.width)
        and not pack.softcap
        and _shared_bytes(pack, _shared_values_back(pack)) <= _max_shared_bytes(y.device)
    )


def _is_supported(device: torch.device, dtype: torch.dtype, head: int) -> bool:
    """Whether heads of this width have kernels on a GPU."""
    return head <= MAX_HEAD and head % TILE == 0 and has_tiles(device, dtype)


def has_tiles(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a GPU has the instructions for tiles of values of this type."""
    return dtype in KERNEL_DTYPES and torch.cuda.get_device_capability(device) >= MIN_CAPABILITY


@functools.cache
def _max_shared_bytes(device: torch.device) -> int:
    """Shared memory that a block can use on this GPU."""
    properties = torch.cuda.get_device_properties(device)
    return int(getattr(properties, "shared_memory_per_block_optin", MAX_SHARED_BYTES))


def _launch_final(
    name: str,
    y: Tensor,
    heads: Heads,
    pack: PackLayout,
    given: tuple[Any, ...],
    values: int,
) -> None:
    """Launch a block for each query head of each segment."""
    blocks, size = (len(pack.bounds) - 1, heads.queries), _shared_bytes(pack, values)
    first = (y, y.stride(0))
    defined = _defined_final(heads)
    SOURCE.launch(name, blocks, _threads(pack), *first, *given, shared_bytes=size, **defined)


def _defined_final(heads: Heads) -> dict[str, int]:
    threads = WARP * MAX_WARPS
    sizes = {"HEAD": heads.width, "HALF": TILE // 2, "RANK": 0, "MAX_THREADS": threads}
    return {**sizes, "GROUP": heads.group, "FINAL": 1}


# ---------------------------------------------------------------- launching


def _kernel_supports(y: Tensor, pack: PackLayout, rank: int) -> bool:
    values = max(_shared_values(pack, rank), _shared_values_back(pack))
    return (
        y.is_cuda
        and _is_supported(y.device, y.dtype, pack.head)
        and rank % TILE == 0
        and _shared_bytes(pack, values) <= _max_shared_bytes(y.device)
    )


def _angles(pack: PackLayout) -> tuple[Any, ...]:
    return pack.cosine, pack.sine, *_segments(pack)


def _segments(pack: PackLayout) -> tuple[Any, ...]:
    return pack.bounds, pack.row_count, pack.shared, pack.scaling


def _shared_values(pack: PackLayout, rank: int) -> int:
    """Values in shared memory, forward: query, key, value, angles, biases and Bs of a head."""
    for_token = 3 * (pack.head + 8) + 2 * pack.cosine.shape[1]
    return _tokens(pack) * for_token + 3 * pack.head * (rank + 9)


def _shared_values_back(pack: PackLayout) -> int:
    """Values in shared memory, backward: query, key, value and the output's gradient."""
    return _tokens(pack) * 4 * (pack.head + 8)


def _shared_bytes(pack: PackLayout, values: int) -> int:
    """Shared memory for 16-bit values and two float32 numbers per token."""
    return 2 * values + 8 * _tokens(pack)


def _tokens(pack: PackLayout) -> int:
    """Tokens of the longest segment, prefix included, rounded up to whole tiles."""
    return -(-pack.longest // TILE) * TILE


def _launch(
    name: str,
    y: Tensor,
    pack: PackLayout,
    width: int,
    rank: int,
    given: tuple[Any, ...],
    values: int,
) -> None:
    """Launch a block for each head of each segment, with this many values in shared memory."""
    blocks = (len(pack.bounds) - 1, width // pack.head)
    size, defined = _shared_bytes(pack, values), _defined(pack, rank)
    SOURCE.launch(
        name, blocks, _threads(pack), y, y.stride(0), *given, shared_bytes=size, **defined
    )


def _threads(pack: PackLayout) -> int:
    """Threads in a block: a warp for each tile of the longest row's own queries, within limits."""
    tiles = _tokens(pack) // TILE - pack.shared // TILE
    return WARP * min(max(tiles, MIN_WARPS), MAX_WARPS)


def _defined(pack: PackLayout, rank: int) -> dict[str, int]:
    """The macros that the kernels are compiled with."""
    half, threads = pack.cosine.shape[1], WARP * MAX_WARPS
    sizes = {"HEAD": pack.head, "HALF": half, "RANK": rank, "MAX_THREADS": threads}
    return {**sizes, "GROUP": 1, "FINAL": 0}
