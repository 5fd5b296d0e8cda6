"""`AdaptedLinear` compared with formulas and finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nlijob.gpu.fast.layers import AdaptedLinear

pytestmark = pytest.mark.arithmetic

DRAWN = torch.Generator().manual_seed(0)
X, A, B, WEIGHT, BIAS = (
    torch.randn(size, dtype=torch.float64, generator=DRAWN)
    for size in ((6, 5), (2, 5), (4, 2), (4, 5), (4,))
)


def adapted(x: Tensor, a: Tensor, b: Tensor, dropout: float = 0.0) -> Any:
    torch.manual_seed(7)  # drop the same values every time
    return AdaptedLinear.apply(x, a, b, WEIGHT, None, BIAS, dropout, None)  # type: ignore[no-untyped-call]


def test_the_output_is_that_of_the_layer_plus_that_of_the_adapter() -> None:
    expected = X @ WEIGHT.t() + BIAS + X @ A.t() @ B.t()
    torch.testing.assert_close(adapted(X, A, B), expected)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_equal_finite_differences(dropout: float) -> None:
    inputs = [tensor.clone().requires_grad_() for tensor in (X, A, B)]
    assert torch.autograd.gradcheck(lambda x, a, b: adapted(x, a, b, dropout), inputs)


def test_dropout_drops_its_share_of_the_adapters_input_only() -> None:
    x = torch.ones(4000, 5, dtype=torch.float64)
    adapter = adapted(x, A, B, 0.4) - (x @ WEIGHT.t() + BIAS)
    assert len(adapter.unique(dim=0)) > 10
    expected = x[:1] @ A.t() @ B.t()
    # each of the five inputs' shares of 4,000 rows is known within 1.3 % (one standard deviation)
    torch.testing.assert_close(adapter.mean(0, keepdim=True), expected, rtol=0.2, atol=0.2)
