"""The loss on general text on a GPU, beside layers that were replaced by faster ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nlijob.config import JobConfig, load_config
from nlijob.data.texts import read_texts
from nlijob.gpu.engine import Engine
from nlijob.gpu.forgetting import encode_texts, text_losses
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.records.job import Example

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.fixture(
    scope="module",
    params=[{}, {"lora.target_modules": "attention"}, {"lora.r": 12}],
    ids=["all-linear", "attention", "library layers"],
)
def job(request: pytest.FixtureRequest) -> JobConfig:
    """With the first two adapters, fused layers compute the demo's model."""
    return load_config("demo", {"lora.dropout": 0.0, **request.param})


@pytest.fixture(scope="module")
def examples(labelled: list[Example]) -> list[Example]:
    return labelled[:32]


@pytest.fixture(scope="module")
def head(job: JobConfig, tokenizer: object, examples: list[Example]) -> CausalHead:
    return CausalHead(tokenizer, job.prompt, 256, examples)


def test_a_zero_adapter_forgets_exactly_nothing_and_scoring_goes_on_unchanged(
    job: JobConfig,
    new_model: Callable[[JobConfig], LoadedModel],
    head: CausalHead,
    rows: list[Encoded],
) -> None:
    loaded = new_model(job)
    encoded = encode_texts(loaded, read_texts("demo"))
    plain = text_losses(loaded, encoded)
    engine = Engine(loaded, head, job, rows)
    assert engine.plan().way == "graph"
    logits = engine.forward()(rows)
    with loaded.model.disable_adapter():
        base = text_losses(loaded, encoded)
    assert text_losses(loaded, encoded) == base
    assert torch.equal(engine.forward()(rows), logits)
    for one, other in zip(base, plain, strict=True):
        assert one.loss is not None
        # 4-bit weights are dequantised in another order of sums; logits agree to 3 %
        assert one.loss == pytest.approx(other.loss, rel=0.03)
