"""A further training on a GPU uses the graphs of the first, and has the outcome of one alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from nlijob.config import JobConfig, load_config
from nlijob.gpu.checkpoints import set_trained_weights, trained_weights
from nlijob.gpu.engine import Engine
from nlijob.gpu.fast.graphs import Graphs
from nlijob.gpu.heads import CausalHead, Encoded, Head
from nlijob.gpu.model import LoadedModel, initial_weights
from nlijob.gpu.training import Trainer
from nlijob.records.job import Example
from tests.gpu.test_fast_modes import EACH, TOGETHER

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
NewModel = Callable[[JobConfig], LoadedModel]


def config(seed: int = 42, **changes: Any) -> JobConfig:
    options = {key.replace("__", "."): value for key, value in changes.items()}
    fixed = {"model.device": "cuda", "train.epochs": 3, "train.seed": seed}
    return load_config("demo", {**fixed, **options})


@pytest.fixture(scope="module")
def examples(labelled: list[Example]) -> list[Example]:
    return labelled[:101]


@pytest.fixture(scope="module")
def head(tokenizer: Any, examples: list[Example]) -> CausalHead:
    return CausalHead(tokenizer, config().prompt, 256, examples)


def losses(trainer: Trainer) -> list[float]:
    return [step.loss for epoch in (1, 2, 3) for step in trainer.epoch(epoch)]


def begun(engine: Engine, loaded: LoadedModel, job: JobConfig) -> Trainer:
    """A trainer for another seed, on the same model."""
    set_trained_weights(loaded.model, initial_weights(loaded.model, None, job.train.seed))
    return engine.trainer(job.train)


@pytest.mark.parametrize("speed", ["graph", "plain"])
@pytest.mark.parametrize("targets", [EACH, TOGETHER], ids=["library layers", "fused layers"])
def test_a_further_training_follows_one_alone(
    new_model: NewModel, head: Head, rows: list[Encoded], speed: str, targets: dict[str, Any]
) -> None:
    job = config(train__speed=speed, model__compute_dtype="float32", **targets)
    other = config(43, train__speed=speed, model__compute_dtype="float32", **targets)
    alone = losses(Engine(new_model(other), head, other, rows).trainer())
    loaded = new_model(job)
    engine = Engine(loaded, head, job, rows)
    first = losses(engine.trainer())
    further = losses(begun(engine, loaded, other))
    # dropout rounds with the size of a pack, which may be that of the first training
    assert further == pytest.approx(alone, rel=1e-2, abs=1e-3)
    assert further != pytest.approx(first, rel=1e-2, abs=1e-3)
    again = losses(begun(engine, loaded, job))
    assert again == pytest.approx(first, rel=1e-2, abs=1e-3)


def test_graphs_are_captured_once_for_all_trainings(
    new_model: NewModel, head: Head, rows: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = config(train__speed="graph")
    loaded = new_model(job)
    engine = Engine(loaded, head, job, rows)
    losses(engine.trainer())
    captured: list[object] = []
    capture = Graphs.capture

    def counted(graphs: Graphs, work: Callable[[], None]) -> Callable[[], None]:
        captured.append(work)
        return capture(graphs, work)

    monkeypatch.setattr(Graphs, "capture", counted)
    before = engine.plan().token_counts
    for seed in (43, 44, 45):
        losses(begun(engine, loaded, config(seed, train__speed="graph")))
    added = set(engine.plan().token_counts) - set(before)
    assert len(captured) == len(added)  # one for each pack that was too large for the others
    assert len(added) <= 2


def test_a_further_training_resumes_in_another_process(
    new_model: NewModel, head: Head, rows: list[Encoded]
) -> None:
    job, other = config(train__speed="graph"), config(43, train__speed="graph")
    loaded = new_model(job)
    engine = Engine(loaded, head, job, rows)
    losses(engine.trainer())
    trainer = begun(engine, loaded, other)
    list(trainer.epoch(1))
    weights = {name: one.clone() for name, one in trained_weights(loaded.model).items()}
    state = trainer.state()
    expected = [step.loss for step in trainer.epoch(2)]
    fresh = new_model(dataclasses.replace(job, train=other.train))
    resumed = Engine(fresh, head, other, rows).trainer()
    set_trained_weights(fresh.model, weights)
    resumed.restore(state)
    assert [s.loss for s in resumed.epoch(2)] == pytest.approx(expected, rel=1e-2, abs=1e-3)
