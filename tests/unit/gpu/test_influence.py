"""Rows that influence each other: in a pack, by padding, or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import (
    BertConfig,
    FNetConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MixtralConfig,
    MPNetConfig,
)

from nlijob.config import JobConfig
from nlijob.errors import ConfigurationError, NotAvailableError
from nlijob.gpu.engine import MIXED, Engine
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.generation import generate
from nlijob.gpu.heads import CausalHead, ClassificationHead, Encoded
from nlijob.gpu.influence import influenced
from nlijob.gpu.model import LoadedModel, add_adapter
from nlijob.heads import HeadName
from nlijob.records.job import Example

pytestmark = pytest.mark.arithmetic

CPU = torch.device("cpu")
SIZES = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
LEAK = "rows of a pack influence each other"

New = Callable[..., LoadedModel]


@pytest.fixture
def adapted(demo: JobConfig, tokenizer: Any) -> New:
    """A small model with an adapter, not quantised."""

    def new(model: Any, *targets: str, heads: tuple[str, ...] = ()) -> LoadedModel:
        lora = dataclasses.replace(demo.lora, target_modules=targets)
        kind: HeadName = "sequence-classification" if heads else "causal"
        config = dataclasses.replace(
            demo, lora=lora, model=dataclasses.replace(demo.model, head=kind)
        )
        return LoadedModel(
            add_adapter(config, model, heads, targets), tokenizer, CPU, torch.float32, 512
        )

    return new


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES))


class Shifted(nn.Module):
    """An MLP that also takes a share of the token before: a causal convolution of width 2."""

    def __init__(self, mlp: nn.Module, share: float) -> None:
        super().__init__()
        self.mlp, self.share = mlp, share

    def forward(self, x: Tensor) -> Tensor:
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        out: Tensor = self.mlp(x) + self.share * before
        return out


def with_convolution(share: float) -> LlamaForCausalLM:
    model = llama()
    for layer in model.model.layers:
        layer.mlp = Shifted(layer.mlp, share)
    return model


@pytest.mark.parametrize("share", [1.0, 1e-4])
def test_a_convolution_leaks_however_small_its_share_and_the_plain_loop_computes(
    adapted: New, head: CausalHead, demo: JobConfig, rows: list[Encoded], share: float
) -> None:
    loaded = adapted(with_convolution(share), "q_proj")
    plan = Engine(loaded, head, demo, rows).plan()
    assert plan.way == "plain"
    assert plan.refused == (f"packed rows, dequantised weights, micro-batch of 8: {LEAK}",)
    assert plan.micro_batch_size == 8  # padding on the right is behind a causal convolution


def test_a_state_space_model_leaks(
    adapted: New, head: CausalHead, demo: JobConfig, rows: list[Encoded]
) -> None:
    torch.manual_seed(0)
    shape = MambaConfig(vocab_size=2048, hidden_size=32, num_hidden_layers=2, state_size=4)
    loaded = adapted(transformers.MambaForCausalLM(shape), "x_proj")
    plan = Engine(loaded, head, demo, rows).plan()
    assert plan.way == "plain"
    assert LEAK in plan.refused[0]


def test_a_mixture_of_experts_groups_tokens_of_all_rows_and_does_not_leak(
    adapted: New, head: CausalHead, demo: JobConfig, rows: list[Encoded]
) -> None:
    torch.manual_seed(0)
    shape = MixtralConfig(
        **SIZES, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2
    )
    loaded = adapted(transformers.MixtralForCausalLM(shape), "q_proj")
    assert Engine(loaded, head, demo, rows).plan().way == "packed"


def test_rows_that_share_a_prefix_do_not_count_as_influencing_each_other(
    adapted: New, head: CausalHead, demo: JobConfig, examples: list[Example]
) -> None:
    alike = [dataclasses.replace(e, premise=examples[0].premise * 3) for e in examples[:6]]
    rows = head.encode("train", alike)
    plan = Engine(adapted(llama(), "q_proj"), head, demo, rows).plan()
    assert (plan.way, plan.refused) == ("packed", ())


def test_a_leak_that_gradients_do_not_show_is_seen_in_the_logits(
    adapted: New,
    head: CausalHead,
    demo: JobConfig,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = FastModel.logits

    def leaking(model: FastModel, packed: Any, shape: Any) -> Tensor:
        return torch.add(exact(model, packed, shape), packed.ids.sum(), alpha=1e-4)

    monkeypatch.setattr(FastModel, "logits", leaking)
    plan = Engine(adapted(llama(), "q_proj"), head, demo, rows).plan()
    assert plan.way == "plain"
    assert LEAK in plan.refused[0]


@pytest.mark.parametrize("kind", ["looks ahead", "mixes all tokens"])
def test_where_padding_has_a_part_in_an_answer_rows_are_computed_one_at_a_time(
    adapted: New,
    head: CausalHead,
    tokenizer: Any,
    demo: JobConfig,
    rows: list[Encoded],
    examples: list[Example],
    kind: str,
) -> None:
    torch.manual_seed(0)
    used: Any = head
    if kind == "looks ahead":  # a BERT as a language model is not told where a row ends
        loaded = adapted(transformers.BertLMHeadModel(BertConfig(**SIZES)), "query")
    else:
        used = ClassificationHead(tokenizer, demo.prompt, 128, examples)
        sizes = {k: v for k, v in SIZES.items() if k != "num_attention_heads"}
        model = transformers.FNetForSequenceClassification(FNetConfig(**sizes, num_labels=3))
        loaded = adapted(model, "intermediate.dense", heads=("classifier",))
    encoded = used.encode("train", examples)
    engine = Engine(loaded, used, demo, encoded)
    plan = engine.plan()
    assert f"plain loop, batches of rows: {MIXED}" in plan.refused
    assert plan.micro_batch_size == 1
    together = engine.forward()(encoded[:5])
    alone = torch.cat([used.logits(loaded.model, used.collate([r], CPU)) for r in encoded[:5]])
    assert torch.equal(together, alone.detach())


def test_an_encoder_with_attention_of_its_own_is_computed_in_batches_and_the_plan_says_why(
    adapted: New, tokenizer: Any, demo: JobConfig, examples: list[Example]
) -> None:
    head = ClassificationHead(tokenizer, demo.prompt, 128, examples)
    model = transformers.MPNetForSequenceClassification(MPNetConfig(**SIZES, num_labels=3))
    loaded = adapted(model, "attn.q", heads=("classifier",))
    plan = Engine(loaded, head, demo, head.encode("train", examples)).plan()
    assert (plan.way, plan.micro_batch_size) == ("plain", 8)
    (refused,) = plan.refused  # as no mode on packs can compute it
    assert refused.endswith("the model's own code for attention does not take packed rows")


def test_free_text_does_not_depend_on_the_prompts_beside_it(
    adapted: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [list(range(5, 9)), list(range(5, 25))]
    texts = [str(prompt) for prompt in prompts]
    sizes: list[int] = []

    def write(loaded: LoadedModel, tokens: int, some: Sequence[list[int]]) -> list[str]:
        sizes.append(len(some))
        return [str(prompt) for prompt in some]

    monkeypatch.setattr("nlijob.gpu.generation._generate_batch", write)
    assert generate(adapted(llama(), "q_proj"), prompts, 4, 8) == texts
    assert generate(adapted(with_convolution(1.0), "q_proj"), prompts, 4, 8) == texts
    assert sizes == [2, 1, 1]


def test_what_a_model_does_in_training_alone_is_tried_before_training(
    adapted: New, head: CausalHead, demo: JobConfig, rows: list[Encoded]
) -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if self.training and len(x) == 1 and x.shape[1] > 1:
                raise ValueError("in training rows must be side by side")
            return x

    model = llama()
    model.model.norm = nn.Sequential(model.model.norm, Masked())
    engine = Engine(adapted(model, "q_proj"), head, demo, rows)
    why = "in training rows must be side by side"
    assert any(text.endswith(why) for text in engine.plan().refused)
    assert next(engine.trainer().epoch(1)).grad_norm


def test_an_adapter_that_the_model_passes_by_is_a_fault_of_the_configuration(
    adapted: New, head: CausalHead, demo: JobConfig, rows: list[Encoded]
) -> None:
    torch.manual_seed(0)
    shape = MambaConfig(vocab_size=2048, hidden_size=32, num_hidden_layers=2, state_size=4)
    targets = ("x_proj", "dt_proj")  # of dt_proj, the model reads the weight alone
    loaded = adapted(transformers.MambaForCausalLM(shape), *targets)
    with pytest.raises(ConfigurationError, match="does not call dt_proj as a layer"):
        Engine(loaded, head, demo, rows)


def test_a_computation_without_gradients_tells_nothing() -> None:
    embedding = nn.Embedding(4, 2)
    own = torch.ones(2, 1, dtype=torch.bool)
    assert influenced(embedding, lambda: torch.zeros(2, 3), own) is None


def test_a_model_that_adds_padding_of_its_own_tells_nothing() -> None:
    embedding = nn.Embedding(4, 2)

    def logits() -> Tensor:
        embedded: Tensor = embedding(torch.ones(2, 5, dtype=torch.long))
        return embedded.sum(1)

    assert influenced(embedding, logits, torch.ones(2, 2, 3, dtype=torch.bool)) is None


def test_a_model_that_cannot_be_computed_ends_with_its_reason(
    new_model: New,
    head: CausalHead,
    demo: JobConfig,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> Tensor:
        raise AssertionError

    monkeypatch.setattr(head, "logits", broken)
    with pytest.raises(NotAvailableError, match="cannot be computed with weights in 4 bits") as e:
        Engine(new_model(), head, demo, rows)
    assert "quantization=none" in e.value.hint
