"""Another adapter on the same loaded model: as if the model had been loaded with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from nlijob.config import JobConfig
from nlijob.gpu.checkpoints import set_trained_weights, trained_weights
from nlijob.gpu.model import (
    LoadedModel,
    initial_weights,
    load,
    read_tokenizer,
    replace_adapter,
)
from nlijob.heads import HeadName
from tests.families import FAMILIES, job, save_model

CPU = torch.device("cpu")
TOKENS = torch.tensor([[5, 6, 7, 8]])


def loaded(config: JobConfig, folder: Path) -> LoadedModel:
    return load(config, folder, read_tokenizer(config, folder), CPU)


def with_lora(config: JobConfig, **changes: Any) -> JobConfig:
    return dataclasses.replace(config, lora=dataclasses.replace(config.lora, **changes))


def logits(one: LoadedModel) -> torch.Tensor:
    one.model.eval()
    with torch.no_grad():
        found: torch.Tensor = one.model(input_ids=TOKENS, use_cache=False).logits
    return found


def trained(one: LoadedModel) -> None:
    """Change the adapter and a trained head, as a training does."""
    with torch.no_grad():
        for weight in trained_weights(one.model).values():
            weight.add_(0.05)


@pytest.mark.parametrize(
    ("name", "head"),
    [("Llama", "causal"), ("Llama", "sequence-classification"), ("GPT-2", "causal")],
)
def test_a_replaced_adapter_is_that_of_a_model_loaded_with_it(
    tmp_path: Path, name: str, head: HeadName
) -> None:
    (family,) = (one for one in FAMILIES if one.name == name)
    save_model(family, tmp_path)
    first = with_lora(job(tmp_path, head), r=4, target_modules="attention")
    second = with_lora(first, r=2, alpha=6, dropout=0.3, target_modules="all-linear")
    used, expected = loaded(first, tmp_path), loaded(second, tmp_path)
    trained(used)
    found = replace_adapter(used, second, expected.targets)
    drawn = initial_weights(found.model, found.head, second.train.seed)
    set_trained_weights(found.model, drawn)  # raises where names differ
    for weight, own in trained_weights(expected.model).items():
        assert torch.equal(trained_weights(found.model)[weight], own), weight
    assert torch.equal(logits(found), logits(expected))
    trained(found)
    trained(expected)
    assert torch.equal(logits(found), logits(expected))
    with found.model.disable_adapter(), expected.model.disable_adapter():
        assert torch.equal(logits(found), logits(expected))
    assert found.targets == expected.targets
