"""Attention within a pack, without flash attention: each segment alone, two ways."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nlijob.gpu.fast import attention

LENGTHS = (5, 1, 7, 3)
Way = Callable[[Tensor, Tensor, Tensor, Tensor, float | None], Tensor]


def one_by_one(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    parts = []
    for start, length in zip(itertools.accumulate(LENGTHS, initial=0), LENGTHS, strict=False):
        q, k, v = (x[start : start + length].transpose(0, 1) for x in (query, key, value))
        alone = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
        parts.append(alone.transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("way", [attention._padded, attention._masked])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_each_segment_attends_to_itself_alone(way: Way, scaling: float | None) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(sum(LENGTHS), 3, 2, 8, requires_grad=True)
    upstream = torch.randn(sum(LENGTHS), 2, 8)
    ends = torch.tensor(LENGTHS).cumsum(0).tolist()
    bounds = torch.tensor([0, *ends, ends[-1], ends[-1]], dtype=torch.int32)  # two are empty
    query, key, value = inputs.unbind(1)
    expected = one_by_one(query, key, value, scaling)
    got = way(query, key, value, bounds, scaling)
    torch.testing.assert_close(got, expected)
    gradients = [torch.autograd.grad(out, inputs, upstream)[0] for out in (expected, got)]
    torch.testing.assert_close(gradients[1], gradients[0])
