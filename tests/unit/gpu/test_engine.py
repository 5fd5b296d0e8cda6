from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from nlijob.config import JobConfig, load_config
from nlijob.errors import ConfigurationError
from nlijob.gpu.engine import Engine, halving
from nlijob.gpu.fast.errors import NotServed
from nlijob.gpu.fast.host import free_bytes
from nlijob.gpu.fast.layers import FastDense
from nlijob.gpu.fast.trainer import GraphTrainer
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import PlainTrainer

NewModel = Callable[..., LoadedModel]


def asks_for(speed: str) -> JobConfig:
    return load_config("demo", {"model.device": "cpu", "train.speed": speed})


def test_on_a_cpu_packed_rows_serve(
    new_model: NewModel, head: CausalHead, rows: list[Encoded]
) -> None:
    engine = Engine(new_model(), head, asks_for("auto"), rows)
    trainer = engine.trainer()
    assert isinstance(trainer, GraphTrainer)
    plan = engine.plan()
    assert (plan.way, plan.base_weights, plan.micro_batch_size) == ("packed", "dequantized", 8)
    assert plan.token_counts == trainer.token_counts
    assert plan.logits_difference is not None
    assert plan.logits_difference < 1e-4
    assert plan.refused == ()


def test_the_plain_way_that_is_asked_for_is_the_libraries_own(
    new_model: NewModel, head: CausalHead, rows: list[Encoded]
) -> None:
    engine = Engine(new_model(), head, asks_for("plain"), rows)
    assert isinstance(engine.trainer(), PlainTrainer)
    plan = engine.plan()
    assert (plan.way, plan.base_weights, plan.micro_batch_size) == ("plain", "as loaded", 8)
    assert "train.speed asks for it" in plan.reason
    assert plan.logits_difference is None


def test_without_memory_for_them_weights_stay_in_4_bits(
    new_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nlijob.gpu.engine.free_bytes", lambda device: 1)
    plan = Engine(new_model(), head, asks_for("auto"), rows).plan()
    assert (plan.way, plan.base_weights) == ("packed", "as loaded")
    assert "0.0 GiB are free" in plan.refused[0]


@pytest.mark.parametrize("free", [1 << 60, 1])
def test_where_rows_are_not_packed_the_plain_way_is_eased(
    new_model: NewModel,
    head: CausalHead,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    free: int,
) -> None:
    def unserved(*_: object) -> None:
        raise NotServed("not causal")

    monkeypatch.setattr("nlijob.gpu.engine.FastModel", unserved)
    monkeypatch.setattr("nlijob.gpu.engine.free_bytes", lambda device: free)
    loaded = new_model()
    expected = list(Engine(new_model(), head, asks_for("plain"), rows).trainer().epoch(1))
    engine = Engine(loaded, head, asks_for("auto"), rows)
    plan = engine.plan()
    fits = free > 1
    assert (plan.way, plan.base_weights) == ("plain", "dequantized" if fits else "as loaded")
    assert len(plan.refused) == (2 if fits else 3)
    dense = [module for module in loaded.model.modules() if isinstance(module, FastDense)]
    assert bool(dense) == fits
    assert [s.loss for s in engine.trainer().epoch(1)] == pytest.approx(
        [s.loss for s in expected], rel=1e-5
    )


def test_a_containers_limit_is_the_memory_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr("nlijob.gpu.fast.host.MEMORY_LIMIT", limit)
    cpu = torch.device("cpu")
    without = free_bytes(cpu)
    limit.write_text("max\n")
    assert free_bytes(cpu) == pytest.approx(without, rel=0.2)
    limit.write_text("1000\n")
    assert free_bytes(cpu) < 0


def test_graphs_that_are_asked_for_and_cannot_be_had_are_an_error(
    new_model: NewModel, head: CausalHead, rows: list[Encoded]
) -> None:
    with pytest.raises(ConfigurationError, match="need an NVIDIA GPU"):
        Engine(new_model(), head, asks_for("graph"), rows)


def test_a_scoring_batch_too_large_for_memory_is_taken_in_parts(rows: list[Encoded]) -> None:
    sizes: list[int] = []

    def forward(some: Sequence[Encoded]) -> torch.Tensor:
        if len(some) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(some))
        return torch.tensor([[row.example.index] for row in some])

    logits = halving(forward)(rows)
    assert logits[:, 0].tolist() == [row.example.index for row in rows]
    assert sizes == [3] * 8


def test_a_row_too_large_for_memory_is_told(rows: list[Encoded]) -> None:
    def forward(some: Sequence[Encoded]) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        halving(forward)(rows)
