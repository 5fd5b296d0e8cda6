"""The modules that LoRA adapts, on models that have no weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig

from nlijob.config import JobConfig, load_config
from nlijob.errors import ConfigurationError
from nlijob.gpu.model import MetaModel, meta_model
from nlijob.gpu.model.structure import structure, transformer_of
from nlijob.gpu.model.targets import find_targets, is_target, shortest_ends
from nlijob.heads import HeadName
from tests import families

LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj")
LLAMA_MLP = ("gate_proj", "up_proj", "down_proj")


def job(wanted: object, head: HeadName = "causal") -> JobConfig:
    return load_config("demo", {"lora.target_modules": wanted, "model.head": head})


def made(name: str, wanted: object = "attention", head: HeadName = "causal") -> MetaModel:
    """The model of a family without weights, with what is adapted."""
    family = next(f for f in families.FAMILIES if f.name == name)
    return meta_model(job(wanted, head), family.config())


def fault(name: str, wanted: object, head: HeadName = "causal") -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        made(name, wanted, head)
    return caught.value


def matched(meta: MetaModel) -> set[str]:
    names = [name for name, _ in meta.model.named_modules()]
    return {name for name in names if any(is_target(name, t) for t in meta.targets)}


@pytest.mark.parametrize(
    ("wanted", "targets"),
    [
        ("attention", LLAMA),
        ("mlp", LLAMA_MLP),
        ("all-linear", LLAMA + LLAMA_MLP),
        (["attention", "lm_head"], (*LLAMA, "lm_head")),
        (["all-linear"], LLAMA + LLAMA_MLP),
        ("o_proj", ("o_proj",)),
        (["v_proj", "q_proj"], ("v_proj", "q_proj")),
        (
            r".*\.1\..*_proj",
            tuple(f"layers.1.self_attn.{n}" for n in LLAMA)
            + tuple(f"layers.1.mlp.{n}" for n in LLAMA_MLP),
        ),
    ],
)
def test_what_is_wanted_becomes_names_or_ends_of_names(
    wanted: object, targets: tuple[str, ...]
) -> None:
    found = made("Llama", wanted).targets
    shorter = tuple(name.replace("layers.1.self_attn.", "1.self_attn.") for name in targets)
    assert found in (targets, tuple(n.replace("layers.1.mlp.", "1.mlp.") for n in shorter))


def test_phi2s_attention_is_exactly_what_the_published_runs_adapted() -> None:
    assert made("Phi").targets == ("q_proj", "k_proj", "v_proj", "dense")


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("GPT-NeoX", ("query_key_value", "dense")),
        ("GPT-2", ("c_attn", "attn.c_proj")),
        ("MPT", ("Wqkv", "out_proj")),
        ("Phi-3", ("o_proj", "qkv_proj")),
        ("Mamba", ("in_proj", "x_proj")),
    ],
)
def test_attention_is_found_whatever_its_layers_are_called(
    name: str, targets: tuple[str, ...]
) -> None:
    assert made(name).targets == targets


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("BERT", ("query", "key", "value", "attention.output.dense")),
        ("DistilBERT", ("q_lin", "k_lin", "v_lin", "out_lin")),
        ("ModernBERT, window", ("Wqkv", "attn.Wo")),
        ("ALBERT, shared layers", ("query", "key", "value", "dense")),
    ],
)
def test_the_attention_of_encoders_is_found(name: str, targets: tuple[str, ...]) -> None:
    assert made(name, head="sequence-classification").targets == targets


@pytest.mark.parametrize("name", ["T5", "BART"])
def test_encoder_decoders_are_adapted_in_encoder_decoder_and_between_them(name: str) -> None:
    found = matched(made(name, head="sequence-classification"))
    assert len(found) == 2 * 3 * 4  # layers, attentions, projections


def test_only_the_part_that_reads_text_is_adapted_in_a_model_that_also_sees() -> None:
    for wanted in ("attention", ["q_proj"], ".*q_proj", "all-linear"):
        found = matched(made("Gemma 3, with vision", wanted))
        assert found
        assert all("language_model" in name for name in found)


def test_a_name_that_only_the_seeing_part_has_is_refused() -> None:
    told = fault("Gemma 3, with vision", ["fc1"])
    assert "fc1 is only in the part of the model that does not read text" in told.message
    assert "q_proj" in told.hint


def test_the_head_and_the_routers_of_experts_are_no_part_of_all_linear() -> None:
    names = matched(made("Qwen2-MoE", "all-linear"))
    assert not any("lm_head" in name or name.endswith("gate") for name in names)
    assert any("shared_expert.up_proj" in name for name in names)


def test_experts_in_one_tensor_are_no_modules_and_it_is_told_what_there_is() -> None:
    told = fault("Mixtral", "mlp")
    assert told.message == "lora.target_modules: the model has no mlp modules that LoRA can adapt"
    assert told.hint == "the model has attention: q_proj, k_proj, v_proj, o_proj"


def test_attention_that_holds_no_modules_is_refused_with_what_there_is() -> None:
    told = fault("XLNet, no linear attention", "attention", "sequence-classification")
    assert "the model has no attention modules that LoRA can adapt" in told.message
    assert told.hint == "the model has mlp: layer_1, layer_2"


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (["self_attn"], "self_attn is not a linear module but a LlamaAttention"),
        (["embed_tokens"], "embed_tokens is not a linear module but a Embedding"),
        (["norm", "q_proj"], "norm is not a linear module but a LlamaRMSNorm"),
        (["c_attn", "Wqkv"], "no linear module of the model is named c_attn or Wqkv"),
        (["proj"], "no linear module of the model is named proj"),
        (r"decoder\..*", r"no linear module of the model has a name of the form decoder\..*"),
    ],
)
def test_what_matches_nothing_is_refused_with_what_there_is(wanted: object, told: str) -> None:
    error = fault("Llama", wanted)
    assert told in error.message
    assert error.hint == (
        "the model has attention: q_proj, k_proj, v_proj, o_proj; "
        "mlp: gate_proj, up_proj, down_proj"
    )


def test_a_layer_whose_weight_is_read_without_a_call_is_not_adapted_and_not_quantised() -> None:
    meta = made("Mamba", "all-linear")
    assert meta.passed_by == ("dt_proj",)
    assert not any("dt_proj" in name for name in matched(meta))


def test_a_model_that_reads_both_ways_is_no_language_model() -> None:
    told = fault("BERT", "attention")
    assert "a bert model reads in both directions" in told.message
    assert told.hint.startswith("set model.head='sequence-classification'")


def test_an_encoder_decoder_is_no_language_model_of_one_text() -> None:
    assert "set model.head='sequence-classification'" in fault("BART", "attention").hint


class Attends(nn.Module):
    """Attention under names of its own."""

    def __init__(self, q: str, k: str, v: str, out: str) -> None:
        super().__init__()
        for name in (q, k, v, out):
            setattr(self, name, nn.Linear(8, 8))


class Block(nn.Module):
    """A layer of a model that nobody knows."""

    def __init__(self, mix: nn.Module) -> None:
        super().__init__()
        self.mix, self.up, self.down = mix, nn.Linear(8, 16), nn.Linear(16, 8)


class Unknown(nn.Module):
    """A model whose classes and names say nothing about attention."""

    def __init__(self, names: tuple[str, str, str, str]) -> None:
        super().__init__()
        self.config: Any = PreTrainedConfig()
        self.blocks = nn.ModuleList(Block(Attends(*names)) for _ in range(2))


@pytest.mark.parametrize(
    "names",
    [("wq", "wk", "wv", "wo"), ("to_q", "to_k", "to_v", "to_out"), ("query", "key", "value", "o")],
)
def test_attention_that_is_called_otherwise_is_what_stands_beside_the_queries(
    names: tuple[str, str, str, str],
) -> None:
    Attends.__name__ = "Mixes"  # no class or name here says attention
    with torch.device("meta"):
        model = Unknown(names)
    found = structure(model)
    assert find_targets(model, found, "attention", (), trains_head=False) == names
    assert find_targets(model, found, "mlp", (), trains_head=False) == ("up", "down")


def test_a_name_that_also_stands_for_other_modules_adapts_the_linear_ones_alone() -> None:
    with torch.device("meta"):
        model = Unknown(("wq", "wk", "wv", "wo"))
        first: Any = model.blocks[0]
        first.mix.add_module("down", nn.LayerNorm(8))
    found = structure(model)
    targets = find_targets(model, found, ["down"], (), trains_head=False)
    assert targets == ("0.down", "1.down")


@pytest.mark.parametrize(
    ("chosen", "others", "ends"),
    [
        (["a.0.q", "a.1.q"], ["a.0.k"], ("q",)),
        (["a.0.q", "a.1.q"], ["b.0.q"], ("a.0.q", "1.q")),
        (["a.0.self.out", "a.0.q"], ["a.0.mlp.out"], ("self.out", "q")),
        (["a.1.q"], ["a.0.q", "a.11.q"], ("1.q",)),
    ],
)
def test_ends_of_names_match_what_is_chosen_and_nothing_else(
    chosen: list[str], others: list[str], ends: tuple[str, ...]
) -> None:
    assert shortest_ends(chosen, [*chosen, *others], is_target) == ends


def test_ends_that_are_compared_as_text_are_not_shared_by_accident() -> None:
    compare: Callable[[str, str], bool] = str.endswith
    assert shortest_ends(["a.0.proj"], ["a.0.proj", "a.0.q_proj"], compare) == ("0.proj",)


def test_a_model_without_the_head_is_refused_with_the_head_that_it_has() -> None:
    config = transformers.CohereConfig(**families.GROUPED)
    with pytest.raises(
        ConfigurationError, match="transformers has no cohere model with a cl"
    ) as caught:
        meta_model(job("attention", "sequence-classification"), config)
    assert caught.value.hint == "set model.head='causal', or take another model"


def test_a_head_is_found_where_the_library_names_the_transformer_wrongly() -> None:
    assert made("Llama 4, text").head_modules == ("lm_head",)


def test_layers_that_lie_beside_the_head_are_no_part_of_it() -> None:
    class Flat(nn.Module):
        base_model_prefix = "model"

        def __init__(self) -> None:
            super().__init__()
            self.words, self.lm_head = nn.Embedding(8, 8), nn.Linear(8, 8)
            self.layers = nn.ModuleList([nn.Linear(8, 8)])

        def get_input_embeddings(self) -> nn.Module:
            return self.words

    assert transformer_of(Flat()) == ""
