"""The check of fused layers' gradients against the library's, before they train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nlijob.config import JobConfig
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.gradients import check_gradients, gradient_differences
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.stacks import gated, parallel
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from tests.gated_models import new_gated_model

pytestmark = pytest.mark.arithmetic
NewModel = Callable[..., LoadedModel]


@pytest.fixture(params=["Phi", "Llama"])
def made(
    request: pytest.FixtureRequest, demo: JobConfig, tokenizer: Any, new_small_phi: NewModel
) -> tuple[Any, LoadedModel]:
    """The module with the layers' passes, and a model that they compute."""
    if request.param == "Phi":
        return parallel, new_small_phi()
    targets = ("q_proj", "v_proj", "down_proj")
    return gated, new_gated_model(demo, tokenizer, "Llama", targets, torch.device("cpu"))


def test_kinds_of_weights_have_the_librarys_gradients_and_the_adapter_stays_as_it_was(
    made: tuple[Any, LoadedModel], head: CausalHead, rows: list[Encoded]
) -> None:
    loaded = made[1]
    fast = FastModel(loaded, head, dense=True)
    assert fast.is_fused
    before = fast.adapter.master.clone()
    found = gradient_differences(loaded, head, fast, rows)
    adapted = {n.split(".lora_")[0].split(".")[-1] for n in fast_names(loaded)}
    assert found.keys() == {f"{name}.lora_{m}" for name in adapted for m in "AB"}
    assert max(found.values()) < 1e-3
    assert torch.equal(fast.adapter.master, before)
    assert not fast.adapter.sums.any()
    assert all(p.grad is not None for p in fast.adapter.parameters)  # the views of the buffer


def fast_names(loaded: LoadedModel) -> list[str]:
    return [name for name, p in loaded.model.named_parameters() if p.requires_grad]


def test_layers_with_a_wrong_gradient_are_refused(
    made: tuple[Any, LoadedModel],
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, loaded = made
    right = module.backward

    def wrong(*given: Any) -> list[Tensor]:
        first, *others = right(*given)
        return [first * 1.1, *others]

    fast = FastModel(loaded, head, dense=True)
    check_gradients(loaded, head, fast, rows, 1e-6)
    monkeypatch.setattr(module, "backward", wrong)
    with pytest.raises(Unsupported, match=r"gradient of \w+\.lora_A.* differs .* by 10\.0 %"):
        check_gradients(loaded, head, fast, rows, 1e-6)
