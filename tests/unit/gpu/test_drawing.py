"""What a process draws for its rows is what one process draws for them among all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nlijob.gpu.drawing import DrawnForRows
from nlijob.gpu.fast.dropout import HostDropout
from nlijob.gpu.shares import Share

ROWS = 5
SHARES = [[1, 4], [0], [2, 3]]


def drawn(work: Callable[..., Tensor], places: list[int] | None, *values: Any) -> Tensor:
    """What `work` does with these rows, or with all of them."""
    torch.manual_seed(7)
    if places is None:
        return work(*values)
    rows: list[Any] = [None] * ROWS
    with DrawnForRows(Share(rows, places), torch.device("cpu")):
        return work(*values)


def attention(query: Tensor, mask: Tensor | None) -> Tensor:
    return functional.scaled_dot_product_attention(query, query, query, mask, dropout_p=0.4)


def functional_dropout(values: Tensor) -> Tensor:
    return functional.dropout(values, 0.4, training=True)


def host_dropout(values: Tensor) -> Tensor:
    layer = HostDropout()
    layer.p = 0.4
    return layer.forward(values)


def by_head(values: Tensor) -> Tensor:
    """Dropout of [rows * heads, ...]."""
    return functional_dropout(values.flatten(0, 1)).view_as(values)


@pytest.mark.parametrize("work", [functional_dropout, host_dropout, by_head])
def test_dropout_of_some_rows_is_theirs_among_all(work: Callable[[Tensor], Tensor]) -> None:
    values = torch.randn(ROWS, 3, 4, 8)
    whole = drawn(work, None, values)
    assert (whole == 0).any()
    for places in SHARES:
        torch.testing.assert_close(drawn(work, places, values[places]), whole[places])


@pytest.mark.parametrize("masks", [0, 1, ROWS])
def test_attention_that_drops_values_drops_the_same_for_some_rows(masks: int) -> None:
    values = torch.randn(ROWS, 2, 6, 8)
    mask = torch.rand(masks, 1, 6, 6) if masks else None
    whole = drawn(attention, None, values, mask)
    for places in SHARES:
        own = mask[places] if mask is not None and masks == ROWS else mask
        torch.testing.assert_close(drawn(attention, places, values[places], own), whole[places])


def test_gradients_of_attention_reach_the_own_rows() -> None:
    values = torch.randn(ROWS, 2, 6, 8)
    whole = values.clone().requires_grad_()
    drawn(attention, None, whole, None).sum().backward()  # type: ignore[no-untyped-call]
    for places in SHARES:
        own = values[places].requires_grad_()
        drawn(attention, places, own, None).sum().backward()  # type: ignore[no-untyped-call]
        assert own.grad is not None
        assert whole.grad is not None
        torch.testing.assert_close(own.grad, whole.grad[places])


def test_nothing_is_dropped_outside_of_training() -> None:
    values = torch.randn(ROWS, 3)
    kept = drawn(lambda values: functional.dropout(values, 0.4, training=False), [1], values[[1]])
    assert torch.equal(kept, values[[1]])


def test_a_scalar_is_drawn_as_it_is() -> None:
    assert drawn(functional_dropout, [1, 4], torch.ones(())).shape == ()
