"""Figures of a model that are read off its modules, without its weights."""

from __future__ import annotations

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from nlijob.config import load_config
from nlijob.gpu.model import MetaModel, add_adapter
from nlijob.gpu.model_look import adapter_inputs, expert_weights, matrix_weights


def test_weights_of_phi_2_are_those_of_its_layers() -> None:
    config = PhiConfig(
        vocab_size=51_200, hidden_size=2_560, intermediate_size=10_240, num_hidden_layers=32
    )
    with torch.device("meta"):
        meta = MetaModel(config, PhiForCausalLM(config), ("lm_head",))
    assert matrix_weights(meta) == 2_516_582_400  # as in benchmarks/results
    assert expert_weights(meta) == 0


def test_of_experts_those_count_that_a_token_meets() -> None:
    config = MixtralConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_local_experts=8,
        num_experts_per_tok=2,
    )
    with torch.device("meta"):
        meta = MetaModel(config, MixtralForCausalLM(config), ("lm_head",))
    attention, router = 4 * 32 * 32, 8 * 32
    assert matrix_weights(meta) == 2 * (attention + router)
    assert expert_weights(meta) == 2 * 2 * 3 * 32 * 48


def test_what_adapters_of_a_layer_read_counts_once_outside_of_attention() -> None:
    config = LlamaConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    names = ("q_proj", "gate_proj", "up_proj", "down_proj")
    with torch.device("meta"):
        adapted = add_adapter(load_config("demo"), LlamaForCausalLM(config), (), names)
    assert adapter_inputs(adapted) == (2 * (3 * 32 + 48), 2 * (32 + 48))
