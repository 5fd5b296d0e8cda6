"""A model computed in float32 for a moment."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nlijob.config import load_config
from nlijob.gpu.exact import in_float32
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from tests import tolerance

CPU = torch.device("cpu")
NewModel = Callable[..., LoadedModel]


@pytest.fixture(params=["none", "nf4"])
def loaded(new_model: NewModel, request: pytest.FixtureRequest) -> LoadedModel:
    options = {"model.compute_dtype": "bfloat16", "model.quantization": request.param}
    return new_model(load_config("demo", options))


def logits(loaded: LoadedModel, head: CausalHead, rows: list[Encoded]) -> Tensor:
    loaded.model.eval()
    with torch.no_grad():
        return head.logits(loaded.model, head.collate(rows, CPU))


def test_logits_are_those_of_the_same_weights_in_float32(
    loaded: LoadedModel, head: CausalHead, rows: list[Encoded]
) -> None:
    narrow = logits(loaded, head, rows[:4])
    with in_float32(loaded.model):
        exact = logits(loaded, head, rows[:4])
    again = logits(loaded, head, rows[:4])
    for module in loaded.model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.float32
    loaded.model.float()
    bound = tolerance.rounding(torch.float32, 2 * tolerance.DEMO_OPERATIONS)
    assert tolerance.distance(exact, logits(loaded, head, rows[:4])) < bound
    assert tolerance.distance(narrow, exact) > bound
    assert torch.equal(again, narrow)


def test_the_model_is_as_before_even_if_its_computation_fails(
    loaded: LoadedModel, head: CausalHead, rows: list[Encoded]
) -> None:
    def state() -> list[tuple[int, torch.dtype]]:
        tensors = [*loaded.model.parameters(), *loaded.model.buffers()]
        return [(values.data_ptr(), values.dtype) for values in tensors]

    def fail(*_: object) -> None:
        assert next(embedding.parameters()).dtype == torch.float32
        raise ZeroDivisionError

    embedding = loaded.model.get_input_embeddings()
    before, narrow = state(), logits(loaded, head, rows[:1])
    handle = embedding.register_forward_hook(fail)
    with pytest.raises(ZeroDivisionError), in_float32(loaded.model):
        logits(loaded, head, rows[:1])
    handle.remove()
    assert state() == before
    assert torch.equal(logits(loaded, head, rows[:1]), narrow)
