"""Layers compiled by torch's compiler, against the same layers in graphs as they are."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from nlijob.config import JobConfig, load_config
from nlijob.demo import DATA_DIR, MODEL_DIR
from nlijob.gpu.engine import Engine
from nlijob.gpu.fast import compiled
from nlijob.gpu.fast.trainer import GraphTrainer
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel, load, read_tokenizer
from nlijob.records import Example, Plan
from nlijob.subset import read_rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
GPU = torch.device("cuda", 0)
TASK = "A text is given and a claim is made. Say whether the text shows the claim to be true.\n"


def config(**changes: Any) -> JobConfig:
    """The demo's recipe, which has adapters on all layers, so that none are computed together."""
    options = {key.replace("__", "."): value for key, value in changes.items()}
    given = {"model.device": "cuda", "model.residual_dropout": 0.0, "train.speed": "graph"}
    job = load_config("demo", {**given, "train.epochs": 4, **options})
    prompt = dataclasses.replace(job.prompt, template=f"{TASK}{job.prompt.template}")
    return dataclasses.replace(job, prompt=prompt)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return read_tokenizer(config(), MODEL_DIR)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    rows = [row for row in read_rows(DATA_DIR / "train.jsonl") if row["label"] >= 0]
    return [Example(i, r["premise"], r["hypothesis"], r["label"]) for i, r in enumerate(rows[:203])]


@pytest.fixture(scope="module")
def head(tokenizer: Any, examples: list[Example]) -> CausalHead:
    return CausalHead(tokenizer, config().prompt, 256, examples)


@pytest.fixture(scope="module")
def rows(head: CausalHead, examples: list[Example]) -> list[Encoded]:
    return head.encode("train", examples)


@pytest.fixture(scope="module")
def new_model(tokenizer: Any) -> Callable[[JobConfig], LoadedModel]:
    return lambda job: load(job, MODEL_DIR, tokenizer, GPU)


NewModel = Callable[[JobConfig], LoadedModel]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compiling pays, however short the training."""
    monkeypatch.setattr(compiled, "COMPILING_S", 0.0)
    monkeypatch.setattr(compiled, "CACHED_S", 0.0)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def trained(engine: Engine, epochs: int) -> tuple[list[float], Plan]:
    trainer = engine.trainer()
    losses = [step.loss for epoch in range(1, epochs + 1) for step in trainer.epoch(epoch)]
    return losses, engine.plan()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(
    ("dtype", "each", "mean"), [("float32", 1e-2, 1e-3), ("bfloat16", 0.1, 1e-2)]
)
def test_losses_are_those_of_the_layers_as_they_are_over_100_steps(
    new_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    always: None,
    dtype: str,
    each: float,
    mean: float,
    dropout: float,
) -> None:
    job = config(model__compute_dtype=dtype, lora__dropout=dropout)
    losses, plan = trained(Engine(new_model(job), head, job, rows), 4)
    assert (plan.layers, plan.refused) == ("compiled", ())
    assert plan.shared_prefix > 20
    assert len(plan.token_counts) > 1
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "COMPILING_S", 1e9)
        patch.setattr(compiled, "CACHED_S", 1e9)
        expected, plan = trained(Engine(new_model(job), head, job, rows), 4)
    assert plan.layers == "as loaded"
    assert len(losses) == 104
    difference = (torch.tensor(losses) - torch.tensor(expected)).abs() / torch.tensor(expected)
    assert difference.max() < each
    assert difference.mean() < mean


def test_a_short_training_is_not_compiled_for(
    new_model: NewModel, head: CausalHead, rows: list[Encoded]
) -> None:
    job = config()
    engine = Engine(new_model(job), head, job, rows)
    engine.trainer()
    plan = engine.plan()
    assert plan.layers == "as loaded"
    assert len(plan.refused) == 1
    assert "layers compiled: compiling takes some" in plan.refused[0]


def _stronger(module: Any, _: Any) -> Callable[..., Any]:
    """A compiler whose layers give half as much again."""
    return lambda *inputs: tuple(part * 1.5 for part in module(*inputs))


def _missing(module: Any, _: Any) -> Callable[..., Any]:
    raise FileNotFoundError("no C compiler")


@pytest.mark.parametrize(
    ("backend", "why"), [(_stronger, "gradients differ"), (_missing, "no C compiler")]
)
def test_a_compiler_that_fails_leaves_the_layers_as_they_are(
    new_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    always: None,
    monkeypatch: pytest.MonkeyPatch,
    backend: Any,
    why: str,
) -> None:
    job = config()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "COMPILING_S", 1e9)
        patch.setattr(compiled, "CACHED_S", 1e9)
        expected, _ = trained(Engine(new_model(job), head, job, rows), 1)
    monkeypatch.setattr(compiled, "BACKEND", backend)
    losses, plan = trained(Engine(new_model(job), head, job, rows), 1)
    assert plan.layers == "as loaded"
    assert why in plan.refused[0]
    assert losses == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("begins_compiled", [True, False])
def test_a_resumed_training_has_the_layers_that_it_began_with(
    new_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    always: None,
    monkeypatch: pytest.MonkeyPatch,
    begins_compiled: bool,
) -> None:
    job = config()

    def trainer(compiles: bool) -> tuple[Engine, Any]:
        for name in ("COMPILING_S", "CACHED_S"):
            monkeypatch.setattr(compiled, name, 0.0 if compiles else 1e9)
        engine = Engine(new_model(job), head, job, rows)
        return engine, engine.trainer()

    first, begun = trainer(begins_compiled)
    assert isinstance(begun, GraphTrainer)
    state = copy.deepcopy(begun.state())
    expected = [step.loss for step in begun.epoch(1)]
    second, resumed = trainer(not begins_compiled)
    assert first.plan().layers != second.plan().layers
    resumed.restore(state)
    assert first.plan().layers == second.plan().layers
    assert [step.loss for step in resumed.epoch(1)] == expected


def test_capturing_compiled_layers_leaves_no_trace_in_the_adapter(
    new_model: NewModel, head: CausalHead, rows: list[Encoded], always: None
) -> None:
    job = config()
    loaded = new_model(job)
    before = {n: p.detach().clone() for n, p in loaded.model.named_parameters() if p.requires_grad}
    trainer = Engine(loaded, head, job, rows).trainer()
    after = dict(loaded.model.named_parameters())
    assert all(torch.equal(after[name], values) for name, values in before.items())
    assert isinstance(trainer, GraphTrainer)
    assert not trainer.state()["step"]
    assert all(not m["exp_avg"].any() for m in trainer.state()["optimizer"].values())
