"""A training's first weights are those of a job that loads the model with the training's seed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from nlijob.config import JobConfig
from nlijob.gpu.checkpoints import set_trained_weights, trained_weights
from nlijob.gpu.model import (
    FirstWeights,
    LoadedModel,
    initial,
    initial_weights,
    load,
    read_tokenizer,
)
from nlijob.heads import HeadName
from tests.families import FAMILIES, job, save_model

CPU = torch.device("cpu")


def loaded(config: JobConfig, folder: Path, seed: int) -> LoadedModel:
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
    return load(config, folder, read_tokenizer(config, folder), CPU)


def with_model(config: JobConfig, **changes: str) -> JobConfig:
    model = dataclasses.replace(config.model, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(config, model=model)


@pytest.mark.parametrize(
    ("name", "head", "changes"),
    [
        ("Llama", "causal", {}),
        ("Llama", "sequence-classification", {"compute_dtype": "bfloat16"}),
        ("GPT-2", "causal", {"quantization": "none", "compute_dtype": "bfloat16"}),
        ("BERT", "sequence-classification", {}),
        ("RoBERTa", "sequence-classification", {"quantization": "none"}),
    ],
)
def test_the_weights_are_those_of_a_load_with_the_seed(
    tmp_path: Path, name: str, head: HeadName, changes: dict[str, str]
) -> None:
    (family,) = (one for one in FAMILIES if one.name == name)
    save_model(family, tmp_path)
    config = with_model(job(tmp_path, head), **changes)
    used = loaded(config, tmp_path, 42)
    before = {name: weight.clone() for name, weight in trained_weights(used.model).items()}
    expected = trained_weights(loaded(config, tmp_path, 7).model)
    drawn = initial_weights(used.model, used.head, 7)
    assert drawn.keys() == expected.keys()
    assert all(torch.equal(drawn[one], weight) for one, weight in expected.items())
    assert all(torch.equal(before[one], w) for one, w in trained_weights(used.model).items())
    assert any(not torch.equal(drawn[one], weight) for one, weight in before.items())


def test_what_trainings_begin_with_is_drawn_once_for_each_seed_and_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (family,) = (one for one in FAMILIES if one.name == "Llama")
    save_model(family, tmp_path)
    used = loaded(job(tmp_path, "causal"), tmp_path, 42)
    expected = {seed: initial_weights(used.model, used.head, seed) for seed in (7, 8)}
    drawn: list[int] = []
    draw = initial._drawn

    def counted(layers: Any, seed: int) -> dict[str, torch.Tensor]:
        drawn.append(seed)
        return draw(layers, seed)

    monkeypatch.setattr(initial, "_drawn", counted)
    first_weights = FirstWeights()
    for seed, shape in ((7, "a"), (7, "a"), (8, "a"), (8, "b"), (8, "b"), (7, "a")):
        first_weights.begin(used.model, seed, shape)
        torch.rand(3)  # something else is drawn meanwhile
        found = first_weights.of(used.model, used.head, seed, shape)
        set_trained_weights(used.model, found)
        assert all(torch.equal(found[name], one) for name, one in expected[seed].items())
        with torch.no_grad():
            for weight in trained_weights(used.model).values():
                weight.add_(1)  # as a training does
    assert drawn == [7, 8, 8, 7]
