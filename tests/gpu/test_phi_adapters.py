"""Phi's fused layers with adapters on any of their parts, compared with the library's layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nlijob.config import JobConfig, load_config
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.records.job import Example
from tests import tolerance
from tests.phi_adapters import ALL, result, some

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
NewModel = Callable[[JobConfig], LoadedModel]


@pytest.fixture(scope="module")
def examples(labelled: list[Example]) -> list[Example]:
    return labelled[:12]


@pytest.fixture(scope="module")
def head(tokenizer: Any, examples: list[Example]) -> CausalHead:
    return CausalHead(tokenizer, load_config("demo").prompt, 256, examples)


@pytest.fixture
def both(
    new_model: NewModel, head: CausalHead, rows: list[Encoded]
) -> Callable[..., list[tuple[Tensor, Tensor]]]:
    """Logits and gradient of fused layers and of the library's."""

    def compute(targets: tuple[str, ...], dtype: str, prefix: int, dropout: float) -> Any:
        job = load_config(
            "demo",
            {
                "model.device": "cuda",
                "model.compute_dtype": dtype,
                "model.quantization": "none",
                "model.residual_dropout": 0.0,
                "lora.target_modules": targets,
                "lora.dropout": dropout,
            },
        )
        results = []
        for dense in (True, False):
            loaded = new_model(job)
            torch.manual_seed(1)
            with torch.no_grad():
                for name, parameter in loaded.model.named_parameters():
                    if "lora_B" in name:
                        parameter.normal_(0, 0.02)
            fast = FastModel(loaded, head, dense)
            assert fast.is_fused == dense
            results.append(result(fast, loaded, rows, prefix))
            fast.close()
        return results

    return compute


Both = Callable[..., list[tuple[Tensor, Tensor]]]


@some
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_logits_and_gradients_equal_those_of_the_librarys_layers(
    both: Both, targets: tuple[str, ...], dropout: float
) -> None:
    bound = tolerance.rounding(torch.float32, 2 * tolerance.DEMO_OPERATIONS)
    for got, expected in zip(*both(targets, "float32", 1, dropout), strict=True):
        assert tolerance.distance(got, expected) < bound


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("targets", [ALL, ("q_proj", "v_proj", "fc1", "fc2")], ids="-".join)
def test_narrow_dtypes_round_about_as_much_as_in_the_librarys_layers(
    both: Both, targets: tuple[str, ...], dtype: str, dropout: float
) -> None:
    ours, theirs = both(targets, dtype, 1, dropout)
    exact, _ = both(targets, "float32", 1, dropout)
    for got, library, expected in zip(ours, theirs, exact, strict=True):
        assert tolerance.distance(got, expected) < 2 * tolerance.distance(library, expected)
