"""Attention within the rows of a pack: causal, or in both directions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from nlijob.gpu.fast import dropout as masks
from nlijob.gpu.fast.errors import NoPackedRows, Unsupported
from nlijob.gpu.fast.prefix import Prefix
from nlijob.gpu.model.structure import ATTENTION

NAME = "packed"


@dataclass(frozen=True)
class AttentionKind:
    """Which tokens of its row a token attends to, and what happens to its scores and weights."""

    is_causal: bool = True
    """Whether a token attends to itself and those before it only; otherwise in both directions."""
    window: int | None = None
    """In both directions: a token attends to others whose distance is less than this; None: to all.
    """
    dropout: float = 0.0
    """Probability that a weight of attention is dropped."""
    softcap: float | None = None
    """Limit of the scores' size: s becomes softcap * tanh(s / softcap). None: no limit."""

    @property
    def window_size(self) -> tuple[int, int]:
        """Tokens before and after a token that it attends to, as flash attention counts them."""
        if self.is_causal:
            return -1, 0
        return (-1, -1) if self.window is None else (self.window - 1, self.window - 1)


CAUSAL = AttentionKind()


def is_bidirectional(model: nn.Module) -> bool:
    """Whether all attention of a model looks in both directions, as its modules say."""
    said = {getattr(module, "is_causal", None) for module in model.modules()}
    return False in said and True not in said


def check_attention(model: nn.Module) -> None:
    """Raise NoPackedRows where a model attends by its own code rather than the library's function.

    Modules that call the function say whether they are causal.
    """
    modules = list(model.modules())
    is_said = any(hasattr(module, "is_causal") for module in modules)
    if not is_said and any(ATTENTION.search(type(module).__name__) for module in modules):
        raise NoPackedRows("the model's own code for attention does not take packed rows")


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
    packed attention, `shared_prefix` where there is one, and `is_bidirectional` where all attention
    of the model is. Raises Unsupported where the model needs something that is not implemented
    here.
    """
    bounds, longest = options.pop("cu_seq_lens_q", None), options.pop("max_length_q", None)
    kind = _kind(module, dropout, longest, options)
    if bounds is None or longest is None:
        raise Unsupported("the model does not pass a pack's bounds to its attention")
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    prefix = options.get("shared_prefix")
    return attend(q, k, v, bounds, longest, scaling, prefix, kind).unsqueeze(0), None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    longest: int,
    scaling: float | None,
    prefix: Prefix | None,
    kind: AttentionKind = CAUSAL,
) -> Tensor:
    """Attention within each segment of a pack and, if causal, to the prefix before it.

    Inputs and output are [tokens, heads, width]; there may be fewer heads of keys and values.
    `longest`: tokens of the longest segment, prefix included.
    """
    each = query.shape[1] // key.shape[1]
    if each > 1:
        key, value = key.repeat_interleave(each, 1), value.repeat_interleave(each, 1)
    shared = prefix.tokens if prefix else 0
    if query.device.type == "cpu":
        return _padded(query, key, value, bounds, scaling, shared, kind, longest=longest)
    if kind.softcap or not _has_flash(query):
        return _masked(query, key, value, bounds, scaling, shared, kind)
    of_keys = bounds
    if prefix:
        key, value, of_keys = prefix.spread(key), prefix.spread(value), prefix.spread_bounds
    # a segment's last query is at its last key, with or without a prefix before them
    places = (bounds, of_keys, longest, longest)
    if kind.dropout:
        return _flash_with_dropout(query, key, value, places, scaling, kind)
    size = kind.window_size
    out = varlen_attn(query, key, value, *places, scale=scaling, window_size=size)
    assert isinstance(out, Tensor)  # torch returns a pair only if more is requested
    return out


def _flash_with_dropout(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    places: tuple[Tensor, Tensor, int, int],
    scaling: float | None,
    kind: AttentionKind,
) -> Tensor:
    """The operation below `varlen_attn`, which takes no dropout itself."""
    before, after = kind.window_size
    out: Tensor = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        *places,
        kind.dropout,
        kind.is_causal,
        return_debug_mask=False,
        scale=scaling,
        window_size_left=before,
        window_size_right=after,
    )[0]
    return out


def _kind(
    module: nn.Module, dropout: float, longest: int | None, options: dict[str, Any]
) -> AttentionKind:
    both_ways = bool(options.get("is_bidirectional"))
    is_causal = getattr(module, "is_causal", None)
    # a module that says nothing may hide tokens by a mask, which it is not given here
    if is_causal is None or bool(is_causal) is both_ways:
        raise Unsupported("the model's attention is not causal")
    window = options.get("sliding_window")
    if window is not None and longest is not None and window >= longest:
        window = None
    if window is not None and not both_ways:
        raise Unsupported(f"the model attends to a window of {window} tokens")
    for name in ("s_aux", "position_bias"):
        if options.get(name) is not None:
            raise Unsupported(f"the model's attention needs {name}")
    softcap = options.get("softcap")
    if softcap and dropout:
        raise Unsupported("the model's attention has dropout and limits its scores (softcap)")
    return AttentionKind(not both_ways, window if both_ways else None, dropout, softcap)


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
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    scaling: float | None,
    prefix: int,
    kind: AttentionKind = CAUSAL,
) -> Tensor:
    place = torch.arange(len(query), device=query.device, dtype=bounds.dtype)
    row = torch.searchsorted(bounds, place, right=True)
    seen = (row[:, None] == row[None, :]) | (place[None, :] < prefix)
    mask = seen & _reached(place[:, None], place[None, :], kind)
    # phi-2's scores overflow in float16: compute them in float32, as the plain loop does
    wide = torch.float32 if query.dtype is torch.float16 else query.dtype
    q, k, v = (part.transpose(0, 1).unsqueeze(0).to(wide) for part in (query, key, value))
    if kind.softcap:
        out = _by_steps(q, k, v, mask, scaling, kind.softcap)
    else:
        attention = functional.scaled_dot_product_attention
        out = attention(q, k, v, mask, dropout_p=kind.dropout, scale=scaling)
    return out[0].transpose(0, 1).to(query.dtype)


def _reached(query: Tensor, key: Tensor, kind: AttentionKind) -> Tensor:
    """Whether a query at one place of a row reaches a key at another; the places broadcast."""
    if kind.is_causal:
        return query >= key
    limit = torch.iinfo(query.dtype).max if kind.window is None else kind.window
    return (query - key).abs() < limit


def _padded(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    scaling: float | None,
    prefix: int,
    kind: AttentionKind = CAUSAL,
    *,
    longest: int = 0,
) -> Tensor:
    """Attention with each segment as a row of its own after the prefix, padded on the right.

    Causal attention never looks at the padding, and other attention is told where it begins. The
    shapes depend on the pack's values, which a GPU would have to wait for; this is for CPUs.
    `longest`: tokens of the longest segment that there may be, for which dropout draws.
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
    seen = None
    if not kind.is_causal or kind.dropout or kind.softcap:
        is_token = own < lengths[:, None]  # [segments, longest]
        seen = _reached(offsets[:, None], offsets, kind) & is_token[:, None]
        # padding sees everything: if it saw nothing, its gradient would not be a number
        seen = (seen | ~is_token[:, :, None]).unsqueeze(1)
    if kind.dropout:
        kept = masks.mask(query.new_empty(query.shape[1], len(query), longest), kind.dropout)
        kept = kept[:, token, : len(offsets)].transpose(0, 1)
        out = _by_steps(q, k, v, seen, scaling, factors=kept / (1 - kind.dropout))
    elif kind.softcap:
        out = _by_steps(q, k, v, seen, scaling, kind.softcap)
    else:
        causal = seen is None
        attention = functional.scaled_dot_product_attention
        out = attention(q, k, v, seen, is_causal=causal, scale=scaling)
    rows = out.transpose(1, 2).flatten(2).flatten(0, 1)  # [segments * longest, heads * width]
    return functional.embedding(place, rows).view_as(query).to(query.dtype)


def _by_steps(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor | None,
    scaling: float | None,
    softcap: float | None = None,
    factors: Tensor | None = None,
) -> Tensor:
    """Attention in steps, for what torch's operation does not have; see `AttentionKind`.

    `factors`: what dropout drew before, for each query and key. Drawing by query rather than within
    the operation lets processes that share a step draw alike.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query @ key.transpose(-1, -2) * scale
    if softcap:
        scores = (scores / softcap).tanh() * softcap
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    return (weights if factors is None else weights * factors) @ value
