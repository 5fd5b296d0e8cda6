"""Layers traced by torch.compile, with their gradients; compiled kernels are tested on a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from nlijob.config import JobConfig, TrainConfig
from nlijob.gpu.fast.compiled import CACHED_S, COMPILING_S, SAVED, CompiledLayers
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.packing import view
from nlijob.gpu.fast.trainer import FastTrainer
from nlijob.gpu.heads import CausalHead, ClassificationHead, Encoded, Head
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import TrainingSchedule
from nlijob.records.job import Example
from tests import broken_compilers, tolerance
from tests.encoders import KINDS, encoder, with_types

pytestmark = pytest.mark.arithmetic


@pytest.fixture(autouse=True)
def traced_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trace layers and gradients without compiling kernels. Attention for CPUs depends on values,
    which cannot be traced, so the other implementation is used."""
    broken_compilers.use("aot_eager", monkeypatch)
    broken_compilers.attend_as_on_a_gpu(monkeypatch)
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
    shape = fast.shape_of(rows)
    packed = view(fast.to_device(rows, shape, len(rows)), shape)
    fast.adapter.gradient.zero_()
    loss = functional.cross_entropy(fast.logits(packed, shape), packed.targets.long())
    fast.adapter.add_gradient(loss)
    return float(loss.detach()), fast.adapter.gradient.clone()


def compilable(loaded: LoadedModel, head: Head) -> tuple[FastModel, CompiledLayers]:
    fast = FastModel(loaded, head, True)
    with torch.no_grad():
        fast.adapter.master.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    fast.adapter.refresh()
    assert fast.compilable
    return fast, fast.compilable


@pytest.mark.parametrize("kind", ["llama", pytest.param("demo", marks=pytest.mark.slow)])
def test_one_compilation_serves_all_packs_and_gives_the_layers_own_gradients(
    request: pytest.FixtureRequest,
    new_model: Callable[[], LoadedModel],
    head: CausalHead,
    rows: list[Encoded],
    kind: str,
) -> None:
    loaded = request.getfixturevalue("llama") if kind == "llama" else new_model()
    fast, layers = compilable(loaded, head)
    # the longest row is the same in all packs, as in a training
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


@pytest.mark.slow
def test_one_compilation_serves_all_packs_of_an_encoder(
    demo: JobConfig, tokenizer: Any, examples: list[Example]
) -> None:
    loaded = encoder(KINDS["BERT"], demo, tokenizer)
    head = ClassificationHead(tokenizer, demo.prompt, 128, examples)
    fast, layers = compilable(loaded, head)
    rows = with_types(head.encode("train", examples))
    longest = max(rows, key=lambda row: row.length)
    some = [[longest, *rows[:count]] for count in (5, 9)]
    expected = [loss_and_gradient(loaded, fast, part) for part in some]
    layers.install()
    for part, (loss, gradient) in zip(some, expected, strict=True):
        got = loss_and_gradient(loaded, fast, part)
        assert got[0] == pytest.approx(loss, rel=tolerance.training(0))
        assert tolerance.distance(got[1], gradient) < tolerance.training(0)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def trainer(
    loaded: LoadedModel, head: CausalHead, rows: list[Encoded], compiles: bool | None
) -> FastTrainer:
    config = TrainConfig(epochs=2, batch_size=7, learning_rate=1e-3)
    return FastTrainer(
        loaded, FastModel(loaded, head, True), TrainingSchedule(config, rows), None, compiles
    )


def losses(way: FastTrainer) -> list[float]:
    return [step.loss for step in way.epoch(1)]


@pytest.mark.slow
def test_training_with_compiled_layers_has_the_losses_of_uncompiled_ones(
    new_model: Callable[[], LoadedModel], head: CausalHead, rows: list[Encoded]
) -> None:
    expected = trainer(new_model(), head, rows, compiles=None)  # on a CPU, not compiled
    got = trainer(new_model(), head, rows, compiles=True)
    assert not expected.steps.is_compiled
    assert (got.steps.is_compiled, got.steps.why_not_compiled) == (True, "")
    assert got.state()["is_compiled"]
    assert losses(got) == pytest.approx(losses(expected), rel=tolerance.training(4))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@broken_compilers.each
def test_layers_stay_uncompiled_if_the_compiler_fails(
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
    assert why in got.steps.why_not_compiled
    assert losses(got) == expected


def test_scoring_uses_the_uncompiled_layers_and_undo_restores_them(
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


def test_compiling_must_pay_off_and_does_so_sooner_with_a_cache(
    llama: LoadedModel, head: CausalHead
) -> None:
    _, layers = compilable(llama, head)
    long, medium, short = COMPILING_S / SAVED + 1, CACHED_S / SAVED + 1, CACHED_S / SAVED - 1
    assert layers.why_not_worth_it(long) == ""
    assert "takes about 20 s and would save 8.2 s" in layers.why_not_worth_it(medium)
    layers.mark_cached()
    assert layers.why_not_worth_it(medium) == ""
    assert "takes about 8 s and would save 7.8 s" in layers.why_not_worth_it(short)


def test_the_cache_marker_depends_on_the_layers(
    llama: LoadedModel, new_model: Callable[[], LoadedModel], head: CausalHead
) -> None:
    _, layers = compilable(llama, head)
    layers.mark_cached()
    layers.install()  # replaces the layers' classes
    medium = CACHED_S / SAVED + 1
    assert layers.why_not_worth_it(medium) == ""
    _, others = compilable(new_model(), head)
    assert others.why_not_worth_it(medium)


def test_without_a_writable_cache_every_training_counts_as_the_first(
    llama: LoadedModel, head: CausalHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, layers = compilable(llama, head)
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file"))
    layers.mark_cached()
    assert "takes about 20 s" in layers.why_not_worth_it(CACHED_S / SAVED + 1)


def test_a_model_without_repeated_layers_is_refused() -> None:
    with pytest.raises(Unsupported, match="does not repeat"):
        CompiledLayers(torch.nn.Linear(2, 2)).install()


def test_fused_recomputed_and_4_bit_layers_are_not_compiled(
    demo: JobConfig, new_model: Callable[..., LoadedModel], head: CausalHead
) -> None:
    for dense, recomputes in ((False, False), (False, True)):
        assert FastModel(new_model(), head, dense, recomputes).compilable is None
    targets = ("q_proj", "k_proj", "v_proj", "dense")
    job = dataclasses.replace(demo, lora=dataclasses.replace(demo.lora, target_modules=targets))
    assert FastModel(new_model(job), head, True).compilable is None
