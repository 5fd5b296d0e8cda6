from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nlijob.config import JobConfig, TrainConfig
from nlijob.errors import ConfigurationError, DivergedError, ExitCode, HardwareError
from nlijob.gpu import checkpoints
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.recompute import repeated_layers
from nlijob.gpu.training import MemoryBudget, PlainTrainer, TrainingSchedule
from nlijob.records.job import TrainStep
from tests import tolerance

pytestmark = pytest.mark.arithmetic

CONFIG = TrainConfig(epochs=3, batch_size=8, learning_rate=1e-3, schedule="cosine")
LOSSES = tolerance.training(3)
"""How far losses of one epoch may part: three steps of 24 rows."""

NewTrainer = Callable[..., tuple[PlainTrainer, LoadedModel]]


@pytest.fixture(scope="module")
def new_trainer(
    new_short_model: Callable[..., LoadedModel], head: CausalHead, rows: list[Encoded]
) -> NewTrainer:
    def new(config: TrainConfig = CONFIG, job: JobConfig | None = None) -> Any:
        loaded = new_short_model(job) if job else new_short_model()
        return PlainTrainer(loaded, head, TrainingSchedule(config, rows)), loaded

    return new


@pytest.fixture(scope="module")
def expected(new_trainer: NewTrainer) -> list[TrainStep]:
    """The steps of an epoch without any lack of memory."""
    return list(new_trainer()[0].epoch(1))


def losses(steps: list[TrainStep]) -> list[float]:
    return [step.loss for step in steps]


def test_loss_falls_over_epochs(new_trainer: NewTrainer) -> None:
    trainer, _ = new_trainer()
    epochs = [sum(losses(list(trainer.epoch(epoch)))) for epoch in (1, 2, 3)]
    assert epochs[0] > epochs[1] > epochs[2]


def test_every_row_is_seen_once_per_epoch(new_trainer: NewTrainer, rows: list[Encoded]) -> None:
    config = dataclasses.replace(CONFIG, batch_size=7)
    trainer, _ = new_trainer(config)
    steps = list(trainer.epoch(1))
    assert [step.examples for step in steps] == [7, 7, 7, 3]
    assert len(steps) == TrainingSchedule(config, rows).steps_per_epoch


def test_the_micro_batch_changes_only_memory_use(new_trainer: NewTrainer) -> None:
    whole, whole_model = new_trainer()
    parts, parts_model = new_trainer(dataclasses.replace(CONFIG, micro_batch_size=2))
    start = checkpoints.adapter_weights(whole_model.model)
    start = {name: weight.clone() for name, weight in start.items()}
    assert losses(list(whole.epoch(1))) == pytest.approx(losses(list(parts.epoch(1))), rel=LOSSES)
    expected = checkpoints.adapter_weights(whole_model.model)
    for name, weight in checkpoints.adapter_weights(parts_model.model).items():
        assert tolerance.distance(weight, expected[name], start[name]) < tolerance.updates(name), (
            name
        )


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing_does_not_change_the_loss(
    demo: JobConfig, new_trainer: NewTrainer, dropout: float
) -> None:
    job = dataclasses.replace(demo, lora=dataclasses.replace(demo.lora, dropout=dropout))
    plain, _ = new_trainer(job=job)
    saving, _ = new_trainer(dataclasses.replace(CONFIG, gradient_checkpointing=True), job)
    assert losses(list(plain.epoch(1))) == pytest.approx(losses(list(saving.epoch(1))), rel=LOSSES)


def test_gradient_checkpointing_is_refused_if_the_model_does_not_support_it() -> None:
    config = dataclasses.replace(CONFIG, gradient_checkpointing=True)
    with pytest.raises(ConfigurationError, match="the model has no layers"):
        MemoryBudget(torch.nn.Linear(1, 1), config)


class SmallMemory:
    """A head that runs out of memory for more than `rows` rows, and for any the first few times."""

    def __init__(self, head: CausalHead, rows: int = 8, times: int = 0) -> None:
        self._head, self._rows, self._left = head, rows, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._head, name)

    def logits(self, model: Any, batch: Any) -> torch.Tensor:
        logits = self._head.logits(model, batch)  # dropout has drawn by now
        self._left -= 1
        if len(batch.position_of_row) > self._rows or self._left >= 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB. GPU 0 has")
        return logits


def test_a_step_that_runs_out_of_memory_is_repeated(
    demo: JobConfig,
    new_short_model: Callable[..., LoadedModel],
    head: CausalHead,
    rows: list[Encoded],
) -> None:
    job = dataclasses.replace(demo, lora=dataclasses.replace(demo.lora, dropout=0.3))
    schedule = TrainingSchedule(CONFIG, rows)
    expected = losses(list(PlainTrainer(new_short_model(job), head, schedule).epoch(1)))
    loaded = new_short_model(job)
    budget = MemoryBudget(loaded.model, CONFIG)
    small: Any = SmallMemory(head)
    steps = PlainTrainer(loaded, small, schedule, budget).epoch(1)
    got = [next(steps).loss]
    small._left = 1
    got += losses(list(steps))
    assert budget.refused == [
        "plain loop, micro-batch of 8: CUDA out of memory. Tried to allocate 1 GiB"
    ]
    assert (budget.recomputes, budget.rows) == (True, 8)
    assert got == pytest.approx(expected, rel=LOSSES)  # with the same dropout


@pytest.mark.parametrize(("fits", "rows_at_once"), [(5, 4), (1, 1)])
def test_the_micro_batch_is_halved_until_it_fits_with_the_same_result(
    new_short_model: Callable[..., LoadedModel],
    head: CausalHead,
    rows: list[Encoded],
    expected: list[TrainStep],
    fits: int,
    rows_at_once: int,
) -> None:
    schedule = TrainingSchedule(CONFIG, rows)
    parts = new_short_model()
    budget = MemoryBudget(parts.model, CONFIG)
    small: Any = SmallMemory(head, fits)
    got = list(PlainTrainer(parts, small, schedule, budget).epoch(1))
    assert budget.rows == rows_at_once
    assert losses(got) == pytest.approx(losses(expected), rel=LOSSES)
    norms = [step.grad_norm for step in expected]
    assert [step.grad_norm for step in got] == pytest.approx(norms, rel=tolerance.UPDATES)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_running_out_of_memory_within_a_layer_has_no_effect(
    new_short_model: Callable[..., LoadedModel],
    head: CausalHead,
    rows: list[Encoded],
    expected: list[TrainStep],
    error: Exception,
) -> None:
    def few(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > 4:
            raise error

    schedule = TrainingSchedule(CONFIG, rows)
    parts = new_short_model()
    repeated_layers(parts.model)[1].mlp.register_forward_pre_hook(few)
    budget = MemoryBudget(parts.model, CONFIG)
    got = losses(list(PlainTrainer(parts, head, schedule, budget).epoch(1)))
    assert (budget.recomputes, budget.rows) == (True, 4)
    assert got == pytest.approx(losses(expected), rel=LOSSES)


def test_a_single_row_that_does_not_fit_is_a_hardware_error(
    new_short_model: Callable[..., LoadedModel], head: CausalHead, rows: list[Encoded]
) -> None:
    small: Any = SmallMemory(head, rows=0)
    trainer = PlainTrainer(new_short_model(), small, TrainingSchedule(CONFIG, rows))
    with pytest.raises(HardwareError, match="one row at a time: CUDA out of memory") as error:
        next(trainer.epoch(1))
    assert error.value.exit_code == ExitCode.HARDWARE


def test_a_training_resumed_from_disk_equals_an_uninterrupted_one(
    demo: JobConfig, new_trainer: NewTrainer, tmp_path: Path
) -> None:
    with_dropout = dataclasses.replace(demo, lora=dataclasses.replace(demo.lora, dropout=0.1))
    unbroken, model = new_trainer(job=with_dropout)
    list(unbroken.epoch(1))
    checkpoints.save_adapter(model.model, tmp_path / "epoch-1", demo.model)
    checkpoints.save_state(unbroken.state(), tmp_path / "state.pt")
    expected = list(unbroken.epoch(2))

    resumed, other = new_trainer(job=with_dropout)
    checkpoints.load_adapter(other.model, tmp_path / "epoch-1")
    resumed.restore(checkpoints.load_state(tmp_path / "state.pt"))
    got = list(resumed.epoch(2))

    assert losses(got) == losses(expected)
    assert [s.step for s in got] == [s.step for s in expected]
    assert [s.learning_rate for s in got] == [s.learning_rate for s in expected]


def test_epochs_take_rows_in_different_orders(new_trainer: NewTrainer) -> None:
    trainer, _ = new_trainer(dataclasses.replace(CONFIG, learning_rate=1e-12))
    assert losses(list(trainer.epoch(1))) != pytest.approx(losses(list(trainer.epoch(2))))


def test_a_nan_loss_stops_training(new_trainer: NewTrainer) -> None:
    trainer, loaded = new_trainer()
    with torch.no_grad():
        next(p for n, p in loaded.model.named_parameters() if "lora_B" in n).fill_(float("nan"))
    with pytest.raises(DivergedError, match="epoch 1, step 1: loss nan"):
        list(trainer.epoch(1))


@pytest.mark.parametrize(
    ("schedule", "middle", "last"),
    [("constant", 1.0, 1.0), ("linear", 0.55, 0.14), ("cosine", 0.57, 0.05)],
)
def test_the_learning_rate_warms_up_and_then_follows_its_schedule(
    rows: list[Encoded], schedule: Any, middle: float, last: float
) -> None:
    config = dataclasses.replace(CONFIG, schedule=schedule, warmup_ratio=0.2)
    steps = TrainingSchedule(config, rows)  # 9 steps, of which 2 warm up
    shares = [steps.rate_share(step) for step in range(9)]
    assert shares[:3] == [0.5, 1.0, 1.0]
    assert shares[5] == pytest.approx(middle, abs=0.05)
    assert shares[8] == pytest.approx(last, abs=0.01)


def test_lengths_of_all_steps_are_those_of_their_rows(
    rows: list[Encoded], head: CausalHead
) -> None:
    table = head.encode("train", [row.example for row in rows[:11]])
    for some in (rows[:11], table):
        schedule = TrainingSchedule(TrainConfig(batch_size=4), some)
        for epoch in (1, 2):
            lengths = [[row.length for row in batch] for batch in schedule.batches(epoch)]
            assert schedule.lengths(epoch).tolist() == [*lengths[:2], [*lengths[2], 0]]
