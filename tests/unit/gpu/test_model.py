from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import bitsandbytes as bnb
import peft
import pytest
import torch
from torch import nn
from transformers import PhiConfig

from nlijob.config import JobConfig
from nlijob.demo import MODEL_DIR
from nlijob.errors import ConfigurationError
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import (
    LoadedModel,
    compute_dtype,
    load,
    max_length,
    meta_model,
    read_model_config,
    weight_bytes,
)
from nlijob.gpu.model.attention import float32_attention
from nlijob.gpu.parameters import count_parameters

pytestmark = pytest.mark.arithmetic

CPU = torch.device("cpu")


class CausalAttention(nn.Module):
    """The part of an attention layer that the attention function needs."""

    is_causal = True


def changed(config: JobConfig, section: str, **values: Any) -> JobConfig:
    part = dataclasses.replace(getattr(config, section), **values)
    return dataclasses.replace(config, **{section: part})


def classification(demo: JobConfig) -> JobConfig:
    return changed(demo, "model", head="sequence-classification")


def test_linear_modules_are_held_in_nf4_and_the_head_is_not(
    new_model: Callable[..., LoadedModel],
) -> None:
    model = new_model().model
    head = model.get_output_embeddings()
    quantized = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert quantized
    assert all(m.weight.quant_type == "nf4" for m in quantized)
    assert not isinstance(head, bnb.nn.Linear4bit)


def test_quantised_weights_still_train_after_scoring(
    head: CausalHead, rows: list[Encoded], new_model: Callable[..., LoadedModel]
) -> None:
    # bitsandbytes repacks weights for inference in eval mode on some CPUs
    model = new_model().model
    batch = head.collate(rows[:4], CPU)
    with torch.no_grad():
        before = head.logits(model.eval(), batch)
    head.logits(model.train(), batch).sum().backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        after = head.logits(model.eval(), batch)
    torch.testing.assert_close(before, after)


def test_the_base_model_is_the_model_with_its_adapter_switched_off(
    head: CausalHead, rows: list[Encoded], new_model: Callable[..., LoadedModel]
) -> None:
    model = new_model().model.eval()
    batch = head.collate(rows[:4], CPU)
    with torch.no_grad():
        base = head.logits(model, batch)  # a new adapter adds nothing
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        tuned = head.logits(model, batch)
        with model.disable_adapter():
            off = head.logits(model, batch)
    assert not torch.allclose(tuned, base)
    torch.testing.assert_close(off, base)


def test_only_the_adapter_trains(new_model: Callable[..., LoadedModel]) -> None:
    trained = [n for n, p in new_model().model.named_parameters() if p.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)


def test_a_classification_head_stays_out_of_quantisation_and_trains_in_float32(
    demo: JobConfig, new_model: Callable[..., LoadedModel]
) -> None:
    model = new_model(classification(demo)).model
    wrapper = next(m for m in model.modules() if isinstance(m, peft.utils.ModulesToSaveWrapper))
    copy = wrapper.modules_to_save["default"]
    assert type(copy) is nn.Linear
    assert copy.weight.dtype is torch.float32
    assert copy.weight.requires_grad


def test_a_classification_model_gets_the_tokenizers_padding_token(
    demo: JobConfig, new_model: Callable[..., LoadedModel]
) -> None:
    loaded = new_model(classification(demo))
    assert loaded.model.config.pad_token_id == loaded.tokenizer.pad_token_id is not None


def test_the_same_seed_draws_the_same_adapter(demo: JobConfig, tokenizer: Any) -> None:
    loaded = (load(demo, MODEL_DIR, tokenizer, torch.device("cpu")) for _ in range(2))
    first, second = (dict(one.model.named_parameters()) for one in loaded)
    for name in (n for n in first if ".lora_A" in n):
        assert torch.equal(first[name], second[name])


def test_a_target_that_matches_nothing_is_refused_and_the_models_names_are_listed(
    demo: JobConfig, tokenizer: Any
) -> None:
    config = changed(demo, "lora", target_modules=("q_proj", "gate_proj", "o_proj"))
    with pytest.raises(ConfigurationError) as error:
        meta_model(config, read_model_config(config, MODEL_DIR, tokenizer))
    assert "no linear module of the model is named gate_proj or o_proj" in error.value.message
    assert "q_proj" in error.value.hint
    assert "fc1" in error.value.hint


def test_the_model_gets_the_requested_residual_dropout(demo: JobConfig, tokenizer: Any) -> None:
    config = changed(demo, "model", residual_dropout=0.25)
    assert read_model_config(config, MODEL_DIR, tokenizer).resid_pdrop == 0.25


@pytest.mark.parametrize(
    ("width", "amx", "expected"),
    [(2560, True, torch.bfloat16), (2560, False, torch.float32), (192, True, torch.float32)],
)
def test_auto_computes_in_bfloat16_on_a_cpu_if_that_is_faster(
    demo: JobConfig,
    monkeypatch: pytest.MonkeyPatch,
    width: int,
    amx: bool,
    expected: torch.dtype,
) -> None:
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    assert compute_dtype(demo.model, PhiConfig(hidden_size=width), CPU) is expected


def test_a_maximum_length_beyond_the_models_context_is_refused(
    demo: JobConfig, tokenizer: Any
) -> None:
    model_config = read_model_config(demo, MODEL_DIR, tokenizer)
    with pytest.raises(ConfigurationError, match=r"model\.max_length"):
        max_length(dataclasses.replace(demo.model, max_length=10**6), model_config, tokenizer)


def test_attention_in_float32_survives_scores_that_overflow_float16() -> None:
    query = torch.full((1, 1, 2, 64), 60.0, dtype=torch.float16)
    module = CausalAttention()
    output, _ = float32_attention(module, query, query, query, None, scaling=1.0)
    assert (query @ query.transpose(-1, -2)).isinf().any()
    assert output.dtype is torch.float16
    assert output.isfinite().all()


def test_weight_bytes_estimate_the_memory_of_the_loaded_weights(
    demo: JobConfig, tokenizer: Any, new_model: Callable[..., LoadedModel]
) -> None:
    loaded = new_model()
    meta = meta_model(demo, read_model_config(demo, MODEL_DIR, tokenizer))
    held = count_parameters(loaded.model, demo.lora.target_modules).base_memory_bytes
    assert held is not None
    largest = 4 * max(p.numel() for p in meta.model.parameters())
    estimate = weight_bytes(meta, demo.model, torch.float32) - largest
    assert estimate == pytest.approx(held, rel=0.05)
