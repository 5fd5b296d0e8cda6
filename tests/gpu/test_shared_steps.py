"""Steps that two GPUs share in CUDA graphs with NCCL, compared with those of one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nlijob.gpu.group import ALONE
from tests.gpu.sharing import STEPS, Findings, Trained, find, train
from tests.groups import on_gpus

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs"),
]
TOGETHER = {"lora.target_modules": ("q_proj", "k_proj", "v_proj", "dense")}
DROPOUT: dict[str, Any] = {"lora.dropout": 0.4, "model.compute_dtype": "float32"}
ROUNDING = 5e-3
"""How far losses in float32 may part after some steps. Other masks of dropout change a loss by many
times as much, with the adapter's weights that the tests begin with."""
MODES: dict[str, dict[str, Any]] = {
    "fused layers": {**DROPOUT, **TOGETHER},
    "fused layers, micro-batches": {**DROPOUT, **TOGETHER, "train.micro_batch_size": 4},
    "library layers": DROPOUT,
    "weights as loaded": {**DROPOUT, "mode": {"dense": False}},
    "recomputed": {**DROPOUT, "mode": {"dense": False, "recomputes": True}},
    "plain loop": {**DROPOUT, "mode": {}},
}


def check(shared: list[Trained], alone: Trained, rounding: float = ROUNDING) -> None:
    first, second = shared
    assert first.weights == second.weights
    assert first.losses == second.losses
    assert len(first.losses) == STEPS
    assert first.losses == pytest.approx(alone.losses, rel=rounding)
    assert first.norms == pytest.approx(alone.norms, rel=20 * rounding)


@pytest.fixture(scope="module")
def shared() -> list[Findings]:
    """What each of two processes finds."""
    return on_gpus(2, find, MODES)


@pytest.mark.parametrize("name", MODES)
def test_two_processes_take_the_steps_of_one_with_its_dropout(
    shared: list[Findings], name: str
) -> None:
    alone, together = train(ALONE, MODES[name]), [found.trained[name] for found in shared]
    check(together, alone)
    if alone.tokens and "micro" not in name:  # of a micro-batch, another process has other rows
        assert max(max(each.tokens) for each in together) < max(alone.tokens)


def test_timing_a_step_shared_and_alone_has_no_effect(shared: list[Findings]) -> None:
    for found in shared:
        expected = found.trained["fused layers"].losses
        assert found.timed.losses == pytest.approx(expected, rel=ROUNDING)


def test_a_process_without_memory_stops_the_others_before_they_wait_for_it(
    shared: list[Findings],
) -> None:
    lead, other = (found.without_memory for found in shared)
    assert lead == "process 1 ran out of memory: CUDA out of memory"
    assert other == "CUDA out of memory"


def test_processes_stop_together_where_training_diverges(shared: list[Findings]) -> None:
    first, second = (found.diverging for found in shared)
    assert first == second
    assert "diverged in epoch 1, step 1" in first[0]
    assert first[1] == 2.0
