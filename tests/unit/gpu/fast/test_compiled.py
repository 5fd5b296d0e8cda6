"""Layers that torch's compiler has traced, gradient and all; its kernels are tried on a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from nlijob.config import JobConfig, TrainConfig
from nlijob.gpu.fast import attention
from nlijob.gpu.fast.compiled import CACHED_S, COMPILING_S, SAVED, CompiledLayers
from nlijob.gpu.fast.errors import NotServed
from nlijob.gpu.fast.model import FastModel, shape_of
from nlijob.gpu.fast.packing import view
from nlijob.gpu.fast.trainer import GraphTrainer
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import Course
from tests import broken_compilers, tolerance


@pytest.fixture(autouse=True)
def traced_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Traced for its gradient and run as it is; a CPU's own attention looks at values, which no
    trace can follow."""
    broken_compilers.use("aot_eager", monkeypatch)
    monkeypatch.setattr(attention, "_padded", attention._masked)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.fixture
def llama(new_llama: Callable[[], LoadedModel]) -> LoadedModel:
    return new_llama()


def loss_and_gradient(
    loaded: LoadedModel, fast: FastModel, rows: list[Encoded]
) -> tuple[float, torch.Tensor]:
    loaded.model.train()
    shape = shape_of(rows)
    packed = view(fast.to_device(rows, shape, len(rows)), shape)
    fast.adapter.gradient.zero_()
    loss = functional.cross_entropy(fast.logits(packed, shape), packed.targets.long())
    fast.adapter.add_gradient(loss)
    return float(loss.detach()), fast.adapter.gradient.clone()


def compilable(loaded: LoadedModel, head: CausalHead) -> tuple[FastModel, CompiledLayers]:
    fast = FastModel(loaded, head, True)
    with torch.no_grad():
        fast.adapter.master.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    fast.adapter.refresh()
    assert fast.compilable
    return fast, fast.compilable


@pytest.mark.parametrize("kind", ["llama", "demo"])
def test_gradients_are_the_layers_own_from_one_compilation(
    request: pytest.FixtureRequest,
    new_model: Callable[[], LoadedModel],
    head: CausalHead,
    rows: list[Encoded],
    kind: str,
) -> None:
    loaded = request.getfixturevalue("llama") if kind == "llama" else new_model()
    fast, layers = compilable(loaded, head)
    # all rows have one longest, as in a training
    longest = max(rows, key=lambda row: row.length)
    some = [[longest, *rows[:count]] for count in (5, 9, 7)]
    expected = [loss_and_gradient(loaded, fast, part) for part in some]
    layers.install()
    for part, (loss, gradient) in zip(some, expected, strict=True):
        got = loss_and_gradient(loaded, fast, part)
        # the trace may choose another order of sums than the layers do
        assert got[0] == pytest.approx(loss, rel=tolerance.training(0))
        assert tolerance.distance(got[1], gradient) < tolerance.training(0)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def trainer(
    loaded: LoadedModel, head: CausalHead, rows: list[Encoded], compiles: bool | None
) -> GraphTrainer:
    config = TrainConfig(epochs=2, batch_size=7, learning_rate=1e-3)
    return GraphTrainer(loaded, FastModel(loaded, head, True), Course(config, rows), None, compiles)


def losses(way: GraphTrainer) -> list[float]:
    return [step.loss for epoch in (1, 2) for step in way.epoch(epoch)]


def test_training_goes_the_way_of_the_layers_as_they_are(
    new_model: Callable[[], LoadedModel], head: CausalHead, rows: list[Encoded]
) -> None:
    expected = trainer(new_model(), head, rows, compiles=None)  # which no CPU has
    got = trainer(new_model(), head, rows, compiles=True)
    assert not expected.steps.is_compiled
    assert (got.steps.is_compiled, got.steps.not_compiled) == (True, "")
    assert got.state()["is_compiled"]
    assert losses(got) == pytest.approx(losses(expected), rel=tolerance.training(8))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@broken_compilers.each
def test_a_compiler_that_fails_leaves_the_layers_as_they_are(
    new_model: Callable[[], LoadedModel],
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    backend: Any,
    why: str,
) -> None:
    expected = losses(trainer(new_model(), head, rows, compiles=None))
    broken_compilers.use(backend, monkeypatch)
    got = trainer(new_model(), head, rows, compiles=True)
    assert not got.steps.is_compiled
    assert why in got.steps.not_compiled
    assert losses(got) == expected


def test_scoring_is_by_the_layers_own_and_undone_all_is(
    llama: LoadedModel, head: CausalHead, rows: list[Encoded]
) -> None:
    fast, layers = compilable(llama, head)
    classes = [type(module) for module in llama.model.modules()]
    expected = fast.score_rows(rows[:4])
    layers.install()
    assert torch.equal(fast.score_rows(rows[:4]), expected)
    assert not torch._dynamo.utils.counters["stats"]
    layers.undo()
    assert [type(module) for module in llama.model.modules()] == classes


def test_compiling_must_pay_in_time_and_sooner_where_a_cache_is(
    llama: LoadedModel, head: CausalHead
) -> None:
    _, layers = compilable(llama, head)
    long, medium, short = COMPILING_S / SAVED + 1, CACHED_S / SAVED + 1, CACHED_S / SAVED - 1
    assert layers.speaks_against(long) == ""
    assert "takes some 20 s and would save 8.2 s" in layers.speaks_against(medium)
    layers.remember()
    assert layers.speaks_against(medium) == ""
    assert "takes some 8 s and would save 7.8 s" in layers.speaks_against(short)


def test_what_a_cache_has_is_known_by_the_layers(
    llama: LoadedModel, new_model: Callable[[], LoadedModel], head: CausalHead
) -> None:
    _, layers = compilable(llama, head)
    layers.remember()
    layers.install()  # which gives layers another class for now
    medium = CACHED_S / SAVED + 1
    assert layers.speaks_against(medium) == ""
    _, others = compilable(new_model(), head)
    assert others.speaks_against(medium)


def test_where_nothing_can_be_noted_every_training_counts_as_the_first(
    llama: LoadedModel, head: CausalHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, layers = compilable(llama, head)
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file"))
    layers.remember()
    assert "takes some 20 s" in layers.speaks_against(CACHED_S / SAVED + 1)


def test_a_model_with_no_layers_to_repeat_is_refused() -> None:
    with pytest.raises(NotServed, match="does not repeat"):
        CompiledLayers(torch.nn.Linear(2, 2)).install()


def test_layers_computed_together_or_again_or_in_4_bit_are_not_compiled(
    demo: JobConfig, new_model: Callable[..., LoadedModel], head: CausalHead
) -> None:
    for dense, recomputes in ((False, False), (False, True)):
        assert FastModel(new_model(), head, dense, recomputes).compilable is None
    targets = ("q_proj", "k_proj", "v_proj", "dense")
    job = dataclasses.replace(demo, lora=dataclasses.replace(demo.lora, target_modules=targets))
    assert FastModel(new_model(job), head, True).compilable is None
