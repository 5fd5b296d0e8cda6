"""Rows of a pack that influence each other, in the data types and kernels of a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from nlijob.config import JobConfig, load_config
from nlijob.gpu.engine import Engine
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel, add_adapter
from nlijob.records.job import Example

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
GPU = torch.device("cuda", 0)
SIZES = {
    "vocab_size": 2048,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


class Shifted(nn.Module):
    """An MLP that also takes a share of the token before: a causal convolution of width 2."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        out: Tensor = self.mlp(x) + 1e-2 * before
        return out


@pytest.fixture(scope="module")
def job() -> JobConfig:
    options = {"lora.dropout": 0.0, "model.quantization": "none", "lora.target_modules": ["q_proj"]}
    return load_config("demo", options)


@pytest.fixture(scope="module")
def examples(labelled: list[Example]) -> list[Example]:
    return labelled[:32]


@pytest.fixture(scope="module")
def head(job: JobConfig, tokenizer: Any, examples: list[Example]) -> CausalHead:
    return CausalHead(tokenizer, job.prompt, 256, examples)


def on_gpu(job: JobConfig, tokenizer: Any, model: Any, dtype: torch.dtype) -> LoadedModel:
    adapted = add_adapter(job, model.to(GPU, dtype), (), job.lora.target_modules)
    return LoadedModel(adapted, tokenizer, GPU, dtype, 256)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_convolution_leaks_below_what_rounding_hides(
    job: JobConfig, tokenizer: Any, head: CausalHead, rows: list[Encoded], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    for layer in model.model.layers:
        layer.mlp = Shifted(layer.mlp)
    plan = Engine(on_gpu(job, tokenizer, model, dtype), head, job, rows).plan()
    assert plan.way == "plain"
    assert "rows of a pack influence each other" in plan.refused[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_attention_within_rows_does_not_leak(
    job: JobConfig, tokenizer: Any, head: CausalHead, rows: list[Encoded], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    loaded = on_gpu(job, tokenizer, LlamaForCausalLM(LlamaConfig(**SIZES)), dtype)
    plan = Engine(loaded, head, job, rows).plan()
    assert (plan.way, plan.refused) == ("graph", ())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_mixture_of_experts_does_not_leak(
    job: JobConfig, tokenizer: Any, head: CausalHead, rows: list[Encoded], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    shape = MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2)
    plan = Engine(on_gpu(job, tokenizer, MixtralForCausalLM(shape), dtype), head, job, rows).plan()
    assert not any("influence each other" in reason for reason in plan.refused)
