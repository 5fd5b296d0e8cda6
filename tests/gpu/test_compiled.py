"""Layers compiled with torch.compile, compared with the uncompiled layers in CUDA graphs."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nlijob.config import JobConfig, load_config
from nlijob.gpu import checkpoints
from nlijob.gpu.engine import Engine
from nlijob.gpu.fast.trainer import FastTrainer
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.records.job import Example, Plan
from tests import broken_compilers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
GPU = torch.device("cuda", 0)
TASK = "A text is given and a claim is made. Say whether the text shows the claim to be true.\n"


def config(**changes: Any) -> JobConfig:
    """The demo's recipe with a longer prompt."""
    options = {key.replace("__", "."): value for key, value in changes.items()}
    given = {"model.device": "cuda", "model.residual_dropout": 0.0, "train.speed": "graph"}
    job = load_config("demo", {**given, "train.epochs": 4, **options})
    prompt = dataclasses.replace(job.prompt, template=f"{TASK}{job.prompt.template}")
    return dataclasses.replace(job, prompt=prompt)


@pytest.fixture(scope="module")
def examples(labelled: list[Example]) -> list[Example]:
    return labelled[:203]


@pytest.fixture(scope="module")
def head(tokenizer: Any, examples: list[Example]) -> CausalHead:
    return CausalHead(tokenizer, config().prompt, 256, examples)


@pytest.fixture(autouse=True)
def _fuses_no_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlijob.gpu.fast.model.choose", lambda *_: (None, [], ""))


NewModel = Callable[[JobConfig], LoadedModel]
NewEngine = Callable[..., Engine]


@pytest.fixture
def new_engine(
    new_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[NewEngine]:
    """Make an engine for a fresh model; training compiles layers, or not, or if that pays off."""

    def new(job: JobConfig, compiles: bool | None) -> Engine:
        chosen = functools.partial(FastTrainer, compiles=compiles)
        monkeypatch.setattr("nlijob.gpu.engine.FastTrainer", chosen)
        return Engine(new_model(job), head, job, rows)

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield new
    torch._dynamo.reset()


def trained(engine: Engine, epochs: int) -> tuple[list[float], Plan]:
    trainer = engine.trainer()
    losses = [step.loss for epoch in range(1, epochs + 1) for step in trainer.epoch(epoch)]
    return losses, engine.plan()


@pytest.mark.parametrize(
    ("dtype", "each", "mean", "dropout"),
    [("float32", 1e-2, 1e-3, 0.1), ("bfloat16", 0.1, 1e-2, 0.0)],
)
def test_losses_with_compiled_layers_follow_the_others_over_100_steps(
    new_engine: NewEngine, dtype: str, each: float, mean: float, dropout: float
) -> None:
    job = config(model__compute_dtype=dtype, lora__dropout=dropout)
    losses, plan = trained(new_engine(job, compiles=True), 4)
    assert (plan.layers, plan.refused) == ("compiled", ())
    assert plan.shared_prefix > 20
    assert len(plan.token_counts) > 1
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    expected, plan = trained(new_engine(job, compiles=False), 4)
    assert (plan.layers, len(losses)) == ("as loaded", 104)
    difference = (torch.tensor(losses) - torch.tensor(expected)).abs() / torch.tensor(expected)
    assert difference.max() < each
    assert difference.mean() < mean


def test_layers_are_compiled_for_a_long_training_and_not_for_a_short_one(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    short = new_engine(config(), compiles=None)
    short.trainer()
    assert short.plan().layers == "as loaded"
    (refused,) = short.plan().refused
    assert "compiled layers: compiling takes about 20 s" in refused
    long = new_engine(config(train__epochs=4_000), compiles=None)
    long.trainer()
    assert (long.plan().layers, long.plan().refused) == ("compiled", ())


@broken_compilers.each
def test_layers_stay_uncompiled_if_the_compiler_fails(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch, backend: Any, why: str
) -> None:
    expected, _ = trained(new_engine(config(), compiles=False), 1)
    broken_compilers.use(backend, monkeypatch)
    losses, plan = trained(new_engine(config(), compiles=True), 1)
    assert plan.layers == "as loaded"
    assert why in plan.refused[0]
    assert losses == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("begins_compiled", [True, False])
def test_a_resumed_training_uses_compiled_layers_only_if_it_began_with_them(
    new_engine: NewEngine, begins_compiled: bool
) -> None:
    first = new_engine(config(), compiles=begins_compiled)
    begun = first.trainer()
    state = copy.deepcopy(begun.state())
    expected = [step.loss for step in begun.epoch(1)]
    second = new_engine(config(), compiles=not begins_compiled)
    resumed = second.trainer()
    assert first.plan().layers != second.plan().layers
    resumed.restore(state)
    assert first.plan().layers == second.plan().layers
    assert [step.loss for step in resumed.epoch(1)] == expected


def test_capturing_compiled_layers_does_not_change_the_adapter(new_engine: NewEngine) -> None:
    engine = new_engine(config(), compiles=True)
    model = engine._loaded.model
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    trainer = engine.trainer()
    assert engine.plan().layers == "compiled"
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], values) for name, values in before.items())
    assert not trainer.state()["step"]
    assert all(not m["exp_avg"].any() for m in trainer.state()["optimizer"].values())


def test_an_epoch_interrupted_with_compiled_layers_goes_on_with_the_same_losses(
    new_engine: NewEngine,
) -> None:
    job = config(lora__dropout=0.3)
    begun = new_engine(job, compiles=True).trainer()
    asked = iter([False] * 4 + [True])
    assert len(list(begun.epoch(1, pause=lambda: next(asked)))) == 5
    state = copy.deepcopy(begun.state())
    before = checkpoints.on_host(checkpoints.trained_weights(_model(begun)))
    expected = [step.loss for step in begun.epoch(1, 5)]
    resumed = new_engine(job, compiles=False).trainer()
    checkpoints.set_trained_weights(_model(resumed), before)
    resumed.restore(state)
    assert [step.loss for step in resumed.epoch(1, 5)] == pytest.approx(expected, rel=1e-2)


def _model(trainer: Any) -> Any:
    return trainer._loaded.model
