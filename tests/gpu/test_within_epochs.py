"""A training on a GPU that is interrupted within an epoch resumes with the same dropout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nlijob.config import JobConfig, load_config
from nlijob.gpu.engine import Engine
from nlijob.gpu.fast.row_dropout import RowMasks
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import Trainer
from nlijob.records.job import Example
from tests.checkpointing import restore, written

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
TOGETHER = {"lora.target_modules": ("q_proj", "k_proj", "v_proj", "dense"), "lora.r": 16}
"""Adapters on attention alone, where the demo has them on all linear layers."""
PREFIX = {
    "prompt.template": " A text is given and a claim is made. Is the claim true?"
    " Premise: {premise} Hypothesis: {hypothesis} Answer:"
}
GRAPH, PLAIN = {"train.speed": "graph"}, {"train.speed": "plain"}
FLOAT16 = {"model.compute_dtype": "float16"}
RECOMPUTED = {"train.gradient_checkpointing": True}
MODES: dict[str, dict[str, Any]] = {
    "graphs, library layers": {**GRAPH, "lora.r": 12},
    "graphs, fused layers, all adapters": GRAPH,
    "graphs, fused layers": {**GRAPH, **TOGETHER},
    "graphs, fused layers, shared prefix": {**GRAPH, **TOGETHER, **PREFIX},
    "graphs, micro-batches": {**GRAPH, **TOGETHER, "train.micro_batch_size": 2},
    "graphs, float16": {**GRAPH, **FLOAT16},
    "graphs, recomputed": {**GRAPH, **RECOMPUTED},
    "graphs, recomputed, shared prefix": {**GRAPH, **RECOMPUTED, **PREFIX},
    "plain loop": PLAIN,
    "plain loop, float16": {**PLAIN, **FLOAT16},
    "plain loop, recomputed": {**PLAIN, **RECOMPUTED},
}
STEPS, DONE = 13, 5
"""Steps of an epoch (101 rows, eight at a time), and those before the interruption."""
ROUNDING = 1e-2
"""How far losses in 16 bits may part where sums have no fixed order. Other masks of dropout change
a loss by several times as much, with the adapter's weights that the tests begin with."""

NewModel = Callable[[JobConfig], LoadedModel]
New = Callable[[JobConfig], tuple[Trainer, LoadedModel]]


@pytest.fixture(scope="module")
def examples(labelled: list[Example]) -> list[Example]:
    return labelled[:101]


@pytest.fixture
def new(new_model: NewModel, tokenizer: Any, examples: list[Example]) -> New:
    """Make a trainer for a fresh model on which dropout has a large effect."""

    def make(job: JobConfig) -> tuple[Trainer, LoadedModel]:
        head = CausalHead(tokenizer, job.prompt, 256, examples)
        rows: list[Encoded] = [*head.encode("train", examples)]
        loaded = new_model(job)
        torch.manual_seed(0)
        for name, parameter in loaded.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        return Engine(loaded, head, job, rows).trainer(), loaded

    return make


def config(mode: dict[str, Any]) -> JobConfig:
    fixed = {"lora.dropout": 0.4, "model.residual_dropout": 0.0, "model.device": "cuda"}
    return load_config("demo", {**fixed, "train.epochs": 2, "train.learning_rate": 1e-4, **mode})


def after(count: int) -> Callable[[], bool]:
    """A `pause` that asks for one after so many steps."""
    asked = iter([False] * (count - 1) + [True])
    return lambda: next(asked)


@pytest.mark.parametrize("name", MODES)
def test_an_interrupted_epoch_goes_on_with_the_same_losses(
    new: New, tmp_path: Path, name: str
) -> None:
    job = config(MODES[name])
    first, undisturbed = new(job), new(job)
    # Sizes of packs are chosen by time, and sums may depend on them.
    restore(undisturbed, written(first, tmp_path / "start.pt"))
    expected = [step.loss for step in undisturbed[0].epoch(1)]
    steps = list(first[0].epoch(1, pause=after(DONE)))  # graphs are many steps ahead without one
    assert [step.step for step in steps] == list(range(1, DONE + 1))
    content = written(first, tmp_path / "state.pt")
    assert content["trainer"]["step"] == DONE
    done = [step.loss for step in steps]
    same = [*done, *(step.loss for step in first[0].epoch(1, DONE))]
    second = new(job)
    list(second[0].epoch(1, pause=after(1)))  # whatever it did before
    restore(second, content)
    resumed = [*done, *(step.loss for step in second[0].epoch(1, DONE))]
    assert len(expected) == STEPS
    assert same == pytest.approx(expected, rel=ROUNDING)
    assert resumed == pytest.approx(expected, rel=ROUNDING)


def test_other_masks_of_dropout_would_be_noticed(
    new: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = new(config({**GRAPH, **TOGETHER}))
    list(way[0].epoch(1, pause=after(DONE)))
    content = written(way, tmp_path / "state.pt")
    expected = [step.loss for step in way[0].epoch(1, DONE)]
    restore(way, content)
    monkeypatch.setattr(RowMasks, "start", lambda *_: None)  # goes on after the epoch's last step
    assert [step.loss for step in way[0].epoch(1, DONE)] != pytest.approx(expected, rel=ROUNDING)


@pytest.mark.parametrize(("begins", "resumes"), [(PLAIN, GRAPH), (GRAPH, PLAIN)])
def test_each_trainer_resumes_within_an_epoch_of_the_other(
    new: New, tmp_path: Path, begins: dict[str, Any], resumes: dict[str, Any]
) -> None:
    exact = {"lora.dropout": 0.0, "model.compute_dtype": "float32"}
    first, second = (new(config({**mode, **exact})) for mode in (begins, resumes))
    list(first[0].epoch(1, pause=after(DONE)))
    restore(second, written(first, tmp_path / "state.pt"))
    expected = [step.loss for step in first[0].epoch(1, DONE)]
    got = [step.loss for step in second[0].epoch(1, DONE)]
    assert got == pytest.approx(expected, rel=ROUNDING)
