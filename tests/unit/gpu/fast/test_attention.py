"""Attention within a pack without flash attention, in both implementations."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nlijob.gpu.fast import attention, dropout
from nlijob.gpu.fast.attention import AttentionKind
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.prefix import make_prefix
from tests import tolerance

pytestmark = pytest.mark.arithmetic

LENGTHS = (5, 1, 7, 3)
Way = Callable[..., Tensor]


def one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    kind: AttentionKind = attention.CAUSAL,
    kept: Tensor | None = None,
) -> Tensor:
    """Each segment's attention by itself. `kept` [heads, tokens, keys]: what dropout keeps."""
    parts = []
    for start, length in zip(itertools.accumulate(LENGTHS, initial=0), LENGTHS, strict=False):
        q, k, v = (x[start : start + length].transpose(0, 1) for x in (query, key, value))
        place = torch.arange(length)
        distance = place[:, None] - place
        seen = distance >= 0 if kind.is_causal else distance.abs() < (kind.window or length)
        scores = q @ k.transpose(-1, -2) * (scaling or q.shape[-1] ** -0.5)
        if kind.softcap:
            scores = kind.softcap * torch.tanh(scores / kind.softcap)
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        if kept is not None:
            weights = weights * kept[:, start : start + length, :length] / (1 - kind.dropout)
        parts.append((weights @ v).transpose(0, 1))
    return torch.cat(parts)


BOTH_WAYS = AttentionKind(is_causal=False)


@pytest.mark.parametrize("way", [attention._padded, attention._masked])
@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize(
    "kind",
    [
        attention.CAUSAL,
        BOTH_WAYS,
        AttentionKind(is_causal=False, window=3),
        AttentionKind(softcap=0.5),
    ],
    ids=["causal", "both ways", "window", "limited"],
)
def test_each_segment_attends_only_to_itself(
    way: Way, scaling: float | None, kind: AttentionKind
) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(sum(LENGTHS), 3, 2, 8, requires_grad=True)
    upstream = torch.randn(sum(LENGTHS), 2, 8)
    ends = torch.tensor(LENGTHS).cumsum(0).tolist()
    bounds = torch.tensor([0, *ends, ends[-1], ends[-1]], dtype=torch.int32)  # two empty segments
    query, key, value = inputs.unbind(1)
    expected = one_by_one(query, key, value, scaling, kind)
    got = way(query, key, value, bounds, scaling, 0, kind)
    torch.testing.assert_close(got, expected)
    gradients = [torch.autograd.grad(out, inputs, upstream)[0] for out in (expected, got)]
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize(("is_causal", "window"), [(True, None), (False, None), (False, 3)])
def test_dropout_draws_for_each_query_and_place_of_a_key(
    is_causal: bool, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    kind, longest = AttentionKind(is_causal, window, dropout=0.4), max(LENGTHS) + 2
    inputs = torch.randn(sum(LENGTHS), 3, 2, 8, requires_grad=True)
    upstream = torch.randn(sum(LENGTHS), 2, 8)
    bounds = torch.tensor([0, *itertools.accumulate(LENGTHS)], dtype=torch.int32)
    kept = (torch.rand(2, sum(LENGTHS), longest) > kind.dropout).float()
    monkeypatch.setattr(dropout, "mask", lambda values, share: kept)
    query, key, value = inputs.unbind(1)
    expected = one_by_one(query, key, value, None, kind, kept)
    got = attention.attend(query, key, value, bounds, longest, None, None, kind)
    torch.testing.assert_close(got, expected)
    gradients = [torch.autograd.grad(out, inputs, upstream)[0] for out in (expected, got)]
    torch.testing.assert_close(gradients[1], gradients[0])


class Asked(nn.Module):
    """A module of a model that attends."""

    def __init__(self, is_causal: bool | None) -> None:
        super().__init__()
        if is_causal is not None:
            self.is_causal = is_causal


@pytest.mark.parametrize(
    ("is_causal", "options", "why"),
    [
        (None, {}, "not causal"),
        (False, {}, "not causal"),  # of a model whose other layers are
        (True, {"is_bidirectional": True}, "not causal"),
        (True, {"sliding_window": 4}, "a window of 4 tokens"),
        (False, {"is_bidirectional": True, "position_bias": 1}, "needs position_bias"),
        (True, {"softcap": 50.0, "dropout": 0.1}, "has dropout and limits its scores"),
    ],
)
def test_attention_that_packs_do_not_support_is_refused(
    is_causal: bool | None, options: dict[str, Any], why: str
) -> None:
    values = torch.zeros(1, 2, 8, 4)
    place: dict[str, Any] = {"cu_seq_lens_q": torch.tensor([0, 8]), "max_length_q": 8}
    with pytest.raises(Unsupported, match=why):
        attention._packed_attention(
            Asked(is_causal), values, values, values, None, **place, **options
        )


def rounded_once(got: Tensor, exact: Tensor) -> None:
    """Within half a unit in bfloat16's last place of what float32 has, whose own rounding of some
    twenty sums and products is relative to the largest values."""
    noise = tolerance.rounding(torch.float32, 64) * float(exact.detach().abs().max())
    torch.testing.assert_close(got.float(), exact, rtol=torch.finfo(got.dtype).eps / 2, atol=noise)


def test_gradients_in_bfloat16_are_computed_in_float32() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(sum(LENGTHS), 3, 2, 8).bfloat16().requires_grad_()
    wide = inputs.detach().float().requires_grad_()
    upstream = torch.randn(sum(LENGTHS), 2, 8).bfloat16()
    bounds = torch.tensor([0, *itertools.accumulate(LENGTHS)], dtype=torch.int32)
    query, key, value = inputs.unbind(1)
    got = attention._padded(query, key, value, bounds, None, 0)
    wide_query, wide_key, wide_value = wide.unbind(1)
    expected = one_by_one(wide_query, wide_key, wide_value, None)
    rounded_once(got, expected)
    (gradient,) = torch.autograd.grad(got, inputs, upstream)
    (of_wide,) = torch.autograd.grad(expected, wide, upstream.float())
    rounded_once(gradient, of_wide)
    with torch.no_grad():
        scored = attention._padded(query, key, value, bounds, None, 0)
    # weights, products and sums may each be rounded to bfloat16 on the way
    assert tolerance.distance(scored, got) < tolerance.rounding(torch.bfloat16, 3)


PREFIX = 4


def behind_the_prefix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of each row by itself, prefix included; only the first row returns the prefix."""
    parts: list[Tensor] = []
    begin = PREFIX
    for length in LENGTHS:
        row = [*range(PREFIX), *range(begin, begin + length)]
        q, k, v = (x[row].transpose(0, 1) for x in (query, key, value))
        whole = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1)
        parts.append(whole[PREFIX:] if parts else whole)
        begin += length
    return torch.cat(parts)


def spread(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, scaling: float | None, tokens: int
) -> Tensor:
    """Attention as flash attention aligns it: a row's last query is at its last key."""
    prefix = make_prefix(tokens, bounds, len(query))
    key, value, of_keys = prefix.spread(key), prefix.spread(value), prefix.spread_bounds
    parts = []
    for i in range(len(bounds) - 1):
        q = query[bounds[i] : bounds[i + 1]].transpose(0, 1)
        k, v = (x[of_keys[i] : of_keys[i + 1]].transpose(0, 1) for x in (key, value))
        mask = torch.ones(q.shape[1], k.shape[1]).tril(k.shape[1] - q.shape[1]).bool()
        alone = functional.scaled_dot_product_attention(q, k, v, mask, scale=scaling)
        parts.append(alone.transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("way", [attention._padded, attention._masked, spread])
def test_each_segment_attends_to_the_prefix_and_itself(way: Way) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(PREFIX + sum(LENGTHS), 3, 2, 8, requires_grad=True)
    upstream = torch.randn(len(inputs), 2, 8)
    ends = [PREFIX + end for end in itertools.accumulate(LENGTHS)]
    bounds = torch.tensor([0, *ends, ends[-1], ends[-1]], dtype=torch.int32)  # two empty segments
    query, key, value = inputs.unbind(1)
    expected = behind_the_prefix(query, key, value)
    got = way(query, key, value, bounds, None, PREFIX)
    torch.testing.assert_close(got, expected)
    gradients = [torch.autograd.grad(out, inputs, upstream)[0] for out in (expected, got)]
    torch.testing.assert_close(gradients[1], gradients[0])
