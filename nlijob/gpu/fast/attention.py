"""Causal attention within the rows of a pack."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.prefix import Prefix

NAME = "packed"
CAUSAL = (-1, 0)


@contextlib.contextmanager
def packed_attention(config: Any) -> Iterator[None]:
    """Make a model with this (transformers) configuration attend within the rows of a pack.

    No mask function is registered for it: transformers then builds no mask, for which it would
    have to read values on the host.
    """
    ALL_ATTENTION_FUNCTIONS.register(NAME, _packed_attention)
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls: [1, heads, tokens, width] -> [1, tokens, heads, width].

    transformers passes `cu_seq_lens_q` (the pack's bounds) and `max_length_q` as it does to its own
    packed attention, and `shared_prefix` where there is one. Raises Unsupported where the model
    needs something that is not implemented here.
    """
    bounds, longest = options.pop("cu_seq_lens_q", None), options.pop("max_length_q", None)
    _check(module, dropout, longest, options)
    if bounds is None or longest is None:
        raise Unsupported("the model does not pass a pack's bounds to its attention")
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    prefix = options.get("shared_prefix")
    return attend(q, k, v, bounds, longest, scaling, prefix).unsqueeze(0), None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    longest: int,
    scaling: float | None,
    prefix: Prefix | None,
) -> Tensor:
    """Causal attention within each segment of a pack and to the prefix before it.

    Inputs and output are [tokens, heads, width]; there may be fewer heads of keys and values.
    `longest`: tokens of the longest segment, prefix included.
    """
    each = query.shape[1] // key.shape[1]
    if each > 1:
        key, value = key.repeat_interleave(each, 1), value.repeat_interleave(each, 1)
    shared = prefix.tokens if prefix else 0
    if query.device.type == "cpu":
        return _padded(query, key, value, bounds, scaling, shared)
    if not _has_flash(query):
        return _masked(query, key, value, bounds, scaling, shared)
    of_keys = bounds
    if prefix:
        key, value, of_keys = prefix.spread(key), prefix.spread(value), prefix.spread_bounds
    # a segment's last query is at its last key, with or without a prefix before them
    out = varlen_attn(
        query, key, value, bounds, of_keys, longest, longest, scale=scaling, window_size=CAUSAL
    )
    assert isinstance(out, Tensor)  # torch returns a pair only if more is requested
    return out


def _check(module: nn.Module, dropout: float, longest: int | None, options: Any) -> None:
    if not getattr(module, "is_causal", False):
        raise Unsupported("the model's attention is not causal")
    if dropout:
        raise Unsupported("the model applies dropout to its attention")
    window = options.get("sliding_window")
    if window is not None and longest is not None and window < longest:
        raise Unsupported(f"the model attends to a window of {window} tokens")
    for name in ("softcap", "s_aux", "position_bias"):
        if options.get(name) is not None:
            raise Unsupported(f"the model's attention needs {name}")


def _has_flash(query: Tensor) -> bool:
    """Whether torch's flash attention supports these values."""
    return (
        query.is_cuda
        and query.dtype is torch.bfloat16
        and query.shape[-1] <= 256
        and query.shape[-1] % 8 == 0
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _masked(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, scaling: float | None, prefix: int
) -> Tensor:
    place = torch.arange(len(query), device=query.device, dtype=bounds.dtype)
    row = torch.searchsorted(bounds, place, right=True)
    seen = (row[:, None] == row[None, :]) | (place[None, :] < prefix)
    mask = seen & (place[:, None] >= place[None, :])
    # phi-2's scores overflow in float16: compute them in float32, as the plain loop does
    wide = torch.float32 if query.dtype is torch.float16 else query.dtype
    q, k, v = (part.transpose(0, 1).unsqueeze(0).to(wide) for part in (query, key, value))
    out = functional.scaled_dot_product_attention(q, k, v, mask, scale=scaling)
    return out[0].transpose(0, 1).to(query.dtype)


def _padded(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, scaling: float | None, prefix: int
) -> Tensor:
    """Attention with each segment as a row of its own after the prefix, padded on the right.

    Causal attention never looks at the padding. The shapes depend on the pack's values, which a GPU
    would have to wait for; this is for CPUs.
    """
    lengths = bounds.diff()
    lengths = lengths[lengths > 0]
    starts = lengths.cumsum(0) - lengths
    before = torch.full((len(lengths), 1), prefix)
    before[0] = 0  # the first segment holds the prefix itself
    offsets = torch.arange(int((lengths[:, None] + before).max()))
    own = offsets - before
    token = torch.where(own < 0, offsets, starts[:, None] + own).clamp(max=len(query) - 1)
    place = ((own >= 0) & (own < lengths[:, None])).flatten().nonzero().flatten()
    # on a CPU, attention's backward pass takes four times as long in bfloat16
    wide = torch.float32 if torch.is_grad_enabled() else query.dtype
    # `embedding` selects rows and has a fast backward pass
    q, k, v = (
        functional.embedding(token, part.flatten(1).to(wide))
        .view(*token.shape, *part.shape[1:])
        .transpose(1, 2)
        for part in (query, key, value)
    )
    out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
    rows = out.transpose(1, 2).flatten(2).flatten(0, 1)  # [segments * longest, heads * width]
    return functional.embedding(place, rows).view_as(query).to(query.dtype)
