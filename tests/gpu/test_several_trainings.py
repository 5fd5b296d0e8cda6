"""A further training on a GPU uses the graphs of the first, and has the outcome of one alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nlijob.config import JobConfig, load_config
from nlijob.gpu.checkpoints import on_host, set_trained_weights, trained_weights
from nlijob.gpu.engine import Engine
from nlijob.gpu.fast.graphs import Graphs
from nlijob.gpu.fast.row_dropout import RowMasks
from nlijob.gpu.heads import CausalHead, Encoded, Head
from nlijob.gpu.model import LoadedModel, initial_weights
from nlijob.gpu.training import Trainer
from nlijob.records.job import Example
from tests.gpu.test_fast_modes import EACH, EXACT, TOGETHER, layers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
NewModel = Callable[[JobConfig], LoadedModel]


DROPOUT = 0.4
"""A share with which other masks are noticed: they change a loss by several times the rounding."""


def config(seed: int = 42, **changes: Any) -> JobConfig:
    """A training of 39 steps in float32, in which rounding stays below what `follows` allows."""
    options = {key.replace("__", "."): value for key, value in changes.items()}
    fixed = {**EXACT, "train.epochs": 3, "train.seed": seed, "model.compute_dtype": "float32"}
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


def follows(got: list[float], expected: list[float]) -> bool:
    """Whether losses differ by rounding alone, as those of graphs and the plain loop may."""
    assert len(got) == len(expected)
    ratio = torch.tensor(got) / torch.tensor(expected) - 1
    return bool(ratio.abs().max() < 1e-2 and ratio.abs().mean() < 1e-3)


@pytest.mark.parametrize("speed", ["graph", "plain"])
@layers
def test_a_further_training_follows_one_alone(
    new_model: NewModel, head: Head, rows: list[Encoded], speed: str, targets: dict[str, Any]
) -> None:
    # A further training may use packs of the first where one alone would choose others.
    job, other = (config(seed, train__speed=speed, **targets) for seed in (42, 43))
    alone = losses(Engine(new_model(other), head, other, rows).trainer())
    loaded = new_model(job)
    engine = Engine(loaded, head, job, rows)
    first = losses(engine.trainer())
    further = losses(begun(engine, loaded, other))
    assert follows(further, alone)
    assert not follows(further, first)


@pytest.mark.parametrize(
    "changes",
    [EACH, TOGETHER, {"train__gradient_checkpointing": True}, {"train__speed": "plain"}],
    ids=["library layers", "fused layers", "recomputed", "plain"],
)
def test_a_training_that_is_repeated_after_another_has_the_same_losses(
    new_model: NewModel, head: Head, rows: list[Encoded], changes: dict[str, Any]
) -> None:
    # With dropout: masks follow from the row, the seed and the step, or the generator's state.
    settings: dict[str, Any] = {"train__speed": "graph", "lora__dropout": DROPOUT, **changes}
    job, other = (config(seed, **settings) for seed in (42, 43))
    loaded = new_model(job)
    engine = Engine(loaded, head, job, rows)
    first = losses(engine.trainer())
    losses(begun(engine, loaded, other))
    assert follows(losses(begun(engine, loaded, job)), first)


@pytest.mark.parametrize("left", ["weights", "moments", "random state"])
def test_what_is_left_of_another_training_would_be_noticed(
    new_model: NewModel,
    head: Head,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    left: str,
) -> None:
    job = config(train__speed="graph", lora__dropout=DROPOUT, **TOGETHER)
    loaded = new_model(job)
    engine = Engine(loaded, head, job, rows)
    trainer = engine.trainer()
    first = losses(trainer)
    moments = on_host(trainer.state())["optimizer"]
    trainer = engine.trainer(job.train) if left == "weights" else begun(engine, loaded, job)
    if left == "moments":
        trainer.restore({**on_host(trainer.state()), "optimizer": moments})
    elif left == "random state":
        monkeypatch.setattr(RowMasks, "start", lambda *_: None)
    assert not follows(losses(trainer), first)


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


@layers
def test_a_further_training_resumes_in_another_process(
    new_model: NewModel, head: Head, rows: list[Encoded], targets: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {"train__speed": "graph", "lora__dropout": DROPOUT, **targets}
    job, other = (config(seed, **settings) for seed in (42, 43))
    loaded = new_model(job)
    engine = Engine(loaded, head, job, rows)
    losses(engine.trainer())
    trainer = begun(engine, loaded, other)
    list(trainer.epoch(1))
    # copies: the state itself is of tensors that the next steps change
    weights, state = on_host(trained_weights(loaded.model)), on_host(trainer.state())
    expected = [step.loss for step in trainer.epoch(2)]
    fresh = new_model(other)
    resumed = Engine(fresh, head, other, rows).trainer()
    set_trained_weights(fresh.model, weights)
    resumed.restore(state)
    assert follows([step.loss for step in resumed.epoch(2)], expected)
