"""The one autograd function of the fast way, checked against numbers rather than other code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nlijob.gpu.fast.layers import AdaptedLinear
from nlijob.gpu.fast.phi import RotatedProjections

X, A, B = (torch.randn(size, dtype=torch.float64) for size in ((6, 5), (2, 5), (4, 2)))
WEIGHT, BIAS = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, dtype=torch.float64)


def adapted(x: Tensor, a: Tensor, b: Tensor, dropout: float = 0.0) -> Any:
    torch.manual_seed(7)  # the same values are dropped every time
    return AdaptedLinear.apply(x, a, b, WEIGHT, None, BIAS, dropout)  # type: ignore[no-untyped-call]


def test_the_output_is_the_layers_plus_the_adapters() -> None:
    expected = X @ WEIGHT.t() + BIAS + X @ A.t() @ B.t()
    torch.testing.assert_close(adapted(X, A, B), expected)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_are_the_differences(dropout: float) -> None:
    inputs = [tensor.clone().requires_grad_() for tensor in (X, A, B)]
    assert torch.autograd.gradcheck(lambda x, a, b: adapted(x, a, b, dropout), inputs)


def test_dropout_takes_the_share_asked_for_from_the_adapters_input_alone() -> None:
    x = torch.ones(4000, 5, dtype=torch.float64)
    adapter = adapted(x, A, B, 0.4) - (x @ WEIGHT.t() + BIAS)
    assert len(adapter.unique(dim=0)) > 10
    expected = x[:1] @ A.t() @ B.t()
    torch.testing.assert_close(adapter.mean(0, keepdim=True), expected, rtol=0.2, atol=0.2)


TRIPLE_A, TRIPLE_B = (torch.randn(3, *size, dtype=torch.float64) for size in ((2, 5), (8, 2)))
TRIPLE_WEIGHT, TRIPLE_BIAS = (torch.randn(*size, dtype=torch.float64) for size in ((24, 5), (24,)))
ANGLE = torch.randn(6, 1, 1, 1, dtype=torch.float64)


def rotated(x: Tensor, a: Tensor, b: Tensor, dropout: float = 0.0) -> Any:
    """Two heads of width 4, of which 2 are rotated."""
    torch.manual_seed(7)
    return RotatedProjections.apply(
        x, a, b, TRIPLE_WEIGHT, TRIPLE_BIAS, ANGLE.cos(), ANGLE.sin(), 2, dropout
    )  # type: ignore[no-untyped-call]


def test_three_layers_at_once_are_three_layers_rotated_but_for_the_last() -> None:
    for i, got in enumerate(rotated(X, TRIPLE_A, TRIPLE_B)):
        weight, bias = TRIPLE_WEIGHT.chunk(3)[i], TRIPLE_BIAS.chunk(3)[i]
        straight = X @ weight.t() + bias + X @ TRIPLE_A[i].t() @ TRIPLE_B[i].t()
        expected = straight.view(6, 2, 4).clone()
        if i < 2:
            first, second = straight.view(6, 2, 4)[..., 0], straight.view(6, 2, 4)[..., 1]
            cosine, sine = ANGLE.cos().view(6, 1), ANGLE.sin().view(6, 1)
            expected[..., 0] = first * cosine - second * sine
            expected[..., 1] = second * cosine + first * sine
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_of_three_layers_are_the_differences(dropout: float) -> None:
    inputs = [tensor.clone().requires_grad_() for tensor in (X, TRIPLE_A, TRIPLE_B)]
    assert torch.autograd.gradcheck(lambda x, a, b: rotated(x, a, b, dropout), inputs)
