from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from nlijob.config import JobConfig, load_config
from nlijob.errors import ConfigurationError
from nlijob.gpu.engine import Engine, halving
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import PlainTrainer

NewModel = Callable[..., LoadedModel]


def asks_for(speed: str) -> JobConfig:
    return load_config("demo", {"model.device": "cpu", "train.speed": speed})


@pytest.mark.parametrize(
    ("speed", "reason"), [("auto", "need an NVIDIA GPU"), ("plain", "train.speed asks for it")]
)
def test_on_a_cpu_the_plain_way_serves_and_says_why(
    new_model: NewModel, head: CausalHead, rows: list[Encoded], speed: str, reason: str
) -> None:
    engine = Engine(new_model(), head, asks_for(speed), rows)
    assert isinstance(engine.trainer(), PlainTrainer)
    plan = engine.plan()
    assert (plan.way, plan.base_weights, plan.micro_batch_size) == ("plain", "as loaded", 8)
    assert reason in plan.reason
    assert plan.logits_difference is None


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
