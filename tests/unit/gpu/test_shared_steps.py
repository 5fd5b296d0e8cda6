"""Steps that several processes share, compared with those of one process on a CPU in float32."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nlijob.config import JobConfig, TrainConfig
from nlijob.errors import DivergedError, HardwareError, JobError
from nlijob.gpu import checkpoints
from nlijob.gpu.fast import trainer as fast_trainer
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.graphs import Graphs
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.steps import Steps
from nlijob.gpu.fast.trainer import FastTrainer, StepTimes
from nlijob.gpu.group import ALONE, Group
from nlijob.gpu.heads import CausalHead, ClassificationHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.pausing import STEPS_BETWEEN_QUESTIONS
from nlijob.gpu.training import MemoryBudget, PlainTrainer, Trainer, TrainingSchedule
from nlijob.records.job import Example, TrainStep
from tests import tolerance
from tests.checkpointing import restore, written
from tests.encoders import KINDS, encoder, with_types
from tests.groups import in_group
from tests.in_threads import outcomes, together

pytestmark = pytest.mark.arithmetic

CONFIG = TrainConfig(epochs=3, batch_size=5, learning_rate=1e-3)
ROWS = 11
STEPS = 9
"""Of three epochs; the last step of each has one row, so some processes have none."""
LOSSES = tolerance.training(STEPS)
PLAIN: dict[str, bool] = {}
CHECKPOINTED = {"gradient_checkpointing": True}
PACKED = {"dense": True, "recomputes": False}
RECOMPUTED = {"dense": False, "recomputes": True}
MODES = pytest.mark.parametrize("mode", [PLAIN, PACKED], ids=["plain", "packed"])

Made = tuple[Any, LoadedModel]
New = Callable[..., Made]


@pytest.fixture(scope="module")
def rows(rows: list[Encoded]) -> list[Encoded]:
    return rows[:ROWS]


@pytest.fixture(scope="module")
def new(new_small_phi: Callable[..., LoadedModel], head: CausalHead, rows: list[Encoded]) -> New:
    """Make a trainer for a fresh model."""

    def make(
        mode: dict[str, bool],
        group: Group = ALONE,
        config: TrainConfig = CONFIG,
        count: int = ROWS,
        **model: float,
    ) -> Made:
        with torch.random.fork_rng([]):
            loaded = new_small_phi(**model)
        if mode == CHECKPOINTED:
            config = dataclasses.replace(config, gradient_checkpointing=True)
        schedule = TrainingSchedule(config, rows[:count])
        if mode in (PLAIN, CHECKPOINTED):
            return PlainTrainer(loaded, head, schedule, group=group), loaded
        fast = FastModel(loaded, head, **mode)
        return FastTrainer(loaded, fast, schedule, config.micro_batch_size, group=group), loaded

    return make


def weights(loaded: LoadedModel) -> dict[str, Tensor]:
    parts = checkpoints.trained_weights(loaded.model)
    return {name: part.detach().clone() for name, part in parts.items()}


def all_steps(made: Made) -> tuple[list[TrainStep], dict[str, Tensor]]:
    """All steps of a training, and the weights after them."""
    trainer, loaded = made
    return [step for epoch in (1, 2, 3) for step in trainer.epoch(epoch)], weights(loaded)


def check_alike(got: list[TrainStep], expected: list[TrainStep]) -> None:
    assert [step.loss for step in got] == pytest.approx(
        [step.loss for step in expected], rel=LOSSES
    )
    assert [step.grad_norm for step in got] == pytest.approx(
        [step.grad_norm for step in expected], rel=tolerance.UPDATES
    )
    for name in ("step", "epoch", "examples", "learning_rate"):
        assert [getattr(s, name) for s in got] == [getattr(s, name) for s in expected]


def check_weights(
    got: dict[str, Tensor], expected: dict[str, Tensor], start: dict[str, Tensor]
) -> None:
    """As in test_resume.py: rounding decides where a few weights go, which changes the norm little;
    a lost row, moment or step would change it by as much as the training did."""
    a, b, c = (torch.cat([w.flatten() for w in each.values()]) for each in (got, expected, start))
    assert (a - b).norm() < 0.1 * (b - c).norm()


@MODES
@pytest.mark.parametrize(("processes", "micro_batch"), [(2, None), (3, 2)])
def test_a_group_takes_the_steps_of_one_process(
    new: New, mode: dict[str, bool], processes: int, micro_batch: int | None
) -> None:
    config = dataclasses.replace(CONFIG, micro_batch_size=micro_batch)
    start = weights(new(mode)[1])
    expected, final = all_steps(new(mode, config=config))
    shared = outcomes(processes, lambda group: all_steps(new(mode, group, config)))
    for steps, own in shared:
        check_alike(steps, expected)
        check_weights(own, final, start)
        assert all(torch.equal(weight, shared[0][1][name]) for name, weight in own.items())


class Recorded(Group):
    """One process of a group, on its own: it keeps what it would add to the others' sum."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__()
        self.rank, self.size = rank, size
        self.added: list[Tensor] = []

    def sum(self, tensor: Tensor) -> None:
        """See `Group`."""
        self.added.append(tensor.detach().clone())

    def gather(self, value: Any) -> list[Any]:
        """The others have no more to say."""
        return [value if rank == self.rank else None for rank in range(self.size)]


def gradient_of_step(made: Made) -> Tensor:
    """The gradient of an epoch's only step, as it is when the optimizer takes it."""
    trainer, _ = made
    found: list[Tensor] = []
    optimizer = (
        trainer._optimizer if isinstance(trainer, PlainTrainer) else trainer.steps._optimizer
    )
    hook = optimizer.register_step_pre_hook(
        lambda optimizer, args, kwargs: found.append(
            torch.cat(
                [
                    torch.zeros(p.numel()) if p.grad is None else p.grad.flatten().clone()
                    for p in optimizer.param_groups[0]["params"]
                ]
            )
        )
    )
    with contextlib.suppress(JobError):  # a process without rows has no gradient of its own
        list(trainer.epoch(1))
    hook.remove()
    return found[0]


CLIPPED_AT = 1e6
"""So that no gradient is clipped, and a sum of parts is the gradient of the whole."""
RESIDUAL = {"dropout": 0.3, "residual": 0.2}
"""Dropout of the model's own as well, with which its layers cannot be fused."""


@pytest.mark.parametrize(
    ("mode", "model", "micro_batch", "prefix"),
    [
        (PLAIN, RESIDUAL, None, 0),
        (PLAIN, {"dropout": 0.3}, 2, 0),
        (CHECKPOINTED, RESIDUAL, None, 0),
        (PACKED, {"dropout": 0.3}, None, 2),
        (PACKED, {"dropout": 0.3}, 2, 0),
        (PACKED, RESIDUAL, None, 0),
        (RECOMPUTED, RESIDUAL, 2, 2),
    ],
    ids=[
        "plain",
        "plain in parts",
        "checkpointed",
        "fused",
        "fused in parts",
        "packed",
        "recomputed",
    ],
)
def test_dropout_does_not_depend_on_the_split(
    new: New,
    monkeypatch: pytest.MonkeyPatch,
    mode: dict[str, bool],
    model: dict[str, float],
    micro_batch: int | None,
    prefix: int,
) -> None:
    monkeypatch.setattr(fast_trainer, "prefix_of_all", lambda rows, together: prefix)
    config = dataclasses.replace(CONFIG, micro_batch_size=micro_batch, max_grad_norm=CLIPPED_AT)
    count = config.batch_size
    expected = gradient_of_step(new(mode, ALONE, config, count, **model))
    state = torch.get_rng_state()
    parts = []
    for rank in range(3):
        parts.append(gradient_of_step(new(mode, Recorded(rank, 3), config, count, **model)))
        assert torch.equal(torch.get_rng_state(), state), "the next step's dropout differs"
    assert tolerance.distance(torch.stack(parts).sum(0), expected) < tolerance.UPDATES


@pytest.mark.parametrize("mode", [PACKED, RECOMPUTED], ids=["packed", "recomputed"])
def test_dropout_of_an_encoder_and_its_attention_does_not_depend_on_the_split(
    demo: JobConfig, tokenizer: Any, examples: list[Example], mode: dict[str, bool]
) -> None:
    head = ClassificationHead(tokenizer, demo.prompt, 128, examples)
    schedule = TrainingSchedule(
        dataclasses.replace(CONFIG, max_grad_norm=CLIPPED_AT),
        with_types(head.encode("train", examples)[: CONFIG.batch_size]),
    )

    def gradient(group: Group) -> Tensor:
        with torch.random.fork_rng([]):
            loaded = encoder(KINDS["BERT"], demo, tokenizer, dropout=0.3)
        fast = FastModel(loaded, head, **mode)
        return gradient_of_step((FastTrainer(loaded, fast, schedule, None, group=group), loaded))

    expected = gradient(ALONE)
    state = torch.get_rng_state()
    parts = []
    for rank in range(3):
        parts.append(gradient(Recorded(rank, 3)))
        assert torch.equal(torch.get_rng_state(), state), "the next step's dropout differs"
    assert tolerance.distance(torch.stack(parts).sum(0), expected) < tolerance.UPDATES


def losses_of(
    group: Group, loaded: LoadedModel, head: CausalHead, rows: list[Encoded], is_packed: bool
) -> list[float]:
    """Losses of a whole training of this model in a process of a group."""
    loaded = copy.deepcopy(loaded)  # tensors that were sent lie in memory that all share
    schedule = TrainingSchedule(dataclasses.replace(CONFIG, micro_batch_size=3), rows)
    trainer: Trainer = (
        FastTrainer(loaded, FastModel(loaded, head, True), schedule, 3, group=group)
        if is_packed
        else PlainTrainer(loaded, head, schedule, group=group)
    )
    return [step.loss for epoch in (1, 2, 3) for step in trainer.epoch(epoch)]


@pytest.mark.slow
@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "packed"])
def test_a_training_with_dropout_in_processes_of_their_own_has_the_losses_of_one(
    new_small_phi: Callable[..., LoadedModel],
    head: CausalHead,
    rows: list[Encoded],
    is_packed: bool,
) -> None:
    expected = losses_of(ALONE, new_small_phi(**RESIDUAL), head, rows, is_packed)
    shared = in_group(3, losses_of, new_small_phi(**RESIDUAL), head, rows, is_packed)
    assert len(expected) == STEPS
    for losses in shared:
        assert losses == pytest.approx(expected, rel=LOSSES)


@MODES
def test_a_training_resumes_with_another_number_of_processes(
    new: New, tmp_path: Path, mode: dict[str, bool]
) -> None:
    config = dataclasses.replace(CONFIG, batch_size=4)
    start = weights(new(mode)[1])
    expected, final = all_steps(new(mode, config=config))
    first = outcomes(2, lambda group: _from(new(mode, group, config), None, [(1, 0)], tmp_path))
    alone = _from(new(mode, config=config), first[0][1], [(2, 0)], tmp_path)
    last = outcomes(3, lambda group: _from(new(mode, group, config), alone[1], [(3, 0)], tmp_path))
    check_alike([*first[1][0], *alone[0], *last[2][0]], expected)
    check_weights(last[1][1]["weights"], final, start)


def _from(
    made: Made, content: dict[str, Any] | None, epochs: list[tuple[int, int]], folder: Path
) -> tuple[list[TrainStep], dict[str, Any]]:
    """Continue from a checkpoint with these epochs; returns the steps and another checkpoint."""
    if content:
        restore(made, content)
    steps = [step for epoch, done in epochs for step in made[0].epoch(epoch, done)]
    return steps, written(made, folder / f"{id(made)}.pt")


@MODES
def test_all_processes_pause_after_the_same_step(new: New, mode: dict[str, bool]) -> None:
    config = dataclasses.replace(CONFIG, batch_size=1)

    def paused(group: Group) -> list[int]:
        asked = iter([False, True])
        # the lead's clock alone counts: the other's would have it pause at once
        pause = (lambda: next(asked)) if group.is_lead else (lambda: True)
        return [step.step for step in new(mode, group, config)[0].epoch(1, pause=pause)]

    until = list(range(1, STEPS_BETWEEN_QUESTIONS + 1))
    assert outcomes(2, paused) == [until, until]
    assert len(until) < ROWS


@MODES
def test_a_group_whose_lead_never_pauses_trains_to_the_end(new: New, mode: dict[str, bool]) -> None:
    config = dataclasses.replace(CONFIG, batch_size=1)
    done = outcomes(2, lambda group: len(list(new(mode, group, config)[0].epoch(1))))
    assert done == [ROWS, ROWS]


@MODES
def test_all_processes_stop_where_training_diverges(new: New, mode: dict[str, bool]) -> None:
    def diverging(group: Group) -> None:
        made = new(mode, group)
        if not group.is_lead:  # as if the rows of one process alone brought it about
            with torch.no_grad():
                next(p for n, p in made[1].model.named_parameters() if "lora_B" in n).fill_(
                    float("nan")
                )
        list(made[0].epoch(1))

    errors = together(2, diverging)
    assert [type(error) for error in errors] == [DivergedError, DivergedError]
    assert str(errors[0]) == str(errors[1])


class SmallMemory:
    """A head that runs out of memory in one process for more than `rows` rows."""

    def __init__(self, head: CausalHead, rows: int) -> None:
        self._head, self._rows = head, rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._head, name)

    def logits(self, model: Any, batch: Any) -> Tensor:
        if len(batch.position_of_row) > self._rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return self._head.logits(model, batch)


def small_memory(
    new_small_phi: Callable[..., LoadedModel], head: CausalHead, rows: list[Encoded], fits: int
) -> Callable[[Group], tuple[list[TrainStep], MemoryBudget]]:
    """Train an epoch with a plain loop whose second process has little memory."""

    def train(group: Group) -> tuple[list[TrainStep], MemoryBudget]:
        loaded = new_small_phi()
        budget = MemoryBudget(loaded.model, CONFIG)
        given: Any = head if group.is_lead else SmallMemory(head, fits)
        schedule = TrainingSchedule(CONFIG, rows)
        trainer = PlainTrainer(loaded, given, schedule, budget, group)
        return list(trainer.epoch(1)), budget

    return train


def test_where_one_process_lacks_memory_all_repeat_the_step_with_less(
    new: New, new_small_phi: Callable[..., LoadedModel], head: CausalHead, rows: list[Encoded]
) -> None:
    expected = list(new(PLAIN)[0].epoch(1))
    done = outcomes(2, small_memory(new_small_phi, head, rows, fits=1))
    for steps, budget in done:
        check_alike(steps, expected)
        assert (budget.recomputes, budget.rows) == (True, 2)
        assert budget.refused[0] == (
            "plain loop, micro-batch of 5: process 1: CUDA out of memory. Tried to allocate 1 GiB"
        )


def test_all_processes_give_up_where_one_cannot_compute_a_row(
    new_small_phi: Callable[..., LoadedModel], head: CausalHead, rows: list[Encoded]
) -> None:
    errors = together(2, small_memory(new_small_phi, head, rows, fits=0))
    assert [type(error) for error in errors] == [HardwareError, HardwareError]
    assert "process 1: CUDA out of memory" in str(errors[0])


def test_a_parameter_without_a_gradient_in_any_process_is_left_alone(
    new_small_phi: Callable[..., LoadedModel], head: CausalHead, rows: list[Encoded]
) -> None:
    config = dataclasses.replace(CONFIG, weight_decay=0.1)

    def train(group: Group) -> bool:
        loaded = new_small_phi()
        loaded.model.register_parameter("unused", torch.nn.Parameter(torch.ones(3)))
        list(PlainTrainer(loaded, head, TrainingSchedule(config, rows), group=group).epoch(1))
        return torch.equal(loaded.model.unused, torch.ones(3))

    assert outcomes(2, train) == [True, True]


@pytest.mark.parametrize(
    ("fault", "of_others"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
        (RuntimeError("not permitted"), Unsupported),
    ],
)
@pytest.mark.parametrize("again", [False, True], ids=["first training", "next training"])
def test_where_one_process_cannot_capture_its_steps_none_goes_on(
    new: New,
    rows: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
    fault: Exception,
    of_others: type[Exception],
    again: bool,
) -> None:
    capture = Graphs.capture

    def failing(self: Graphs, work: Callable[[], None], **how: bool) -> Callable[[], None]:
        if self in refusing:
            raise fault
        return capture(self, work, **how)

    refusing: list[Graphs] = []
    made = Steps._new_graphs

    def new_graphs(self: Steps) -> Graphs:
        graphs = made(self)
        if self._group.rank == 1 and not again:
            refusing.append(graphs)
        return graphs

    monkeypatch.setattr(Graphs, "capture", failing)
    monkeypatch.setattr(Steps, "_new_graphs", new_graphs)

    def train(group: Group) -> None:
        trainer = new(PACKED, group)[0]
        if group.rank == 1:
            refusing.append(trainer.steps._graphs)
        trainer.begin(TrainingSchedule(dataclasses.replace(CONFIG, seed=7), rows))

    lead, failed, third = together(3, train)
    assert failed is fault
    assert type(lead) is type(third) is of_others
    assert "process 1" in str(lead)
    assert str(fault) in str(lead)


@pytest.mark.parametrize("lacks_memory", [False, True])
def test_timing_a_step_has_no_effect_and_all_processes_know_the_times(
    new: New, monkeypatch: pytest.MonkeyPatch, lacks_memory: bool
) -> None:
    capture = Graphs.capture

    def full(self: Graphs, work: Callable[[], None], **how: bool) -> Callable[[], None]:
        if self not in known:
            work()  # it has added to the gradient when it fails
            raise torch.OutOfMemoryError("CUDA out of memory")
        return capture(self, work, **how)

    known: list[Graphs] = []
    expected, _ = all_steps(new(PACKED))

    def train(group: Group) -> tuple[StepTimes, list[TrainStep]]:
        made = new(PACKED, group)
        known.append(made[0].steps._graphs)
        if lacks_memory and group.is_lead:
            monkeypatch.setattr(Graphs, "capture", full)
        times = made[0].step_times()
        return times, all_steps(made)[0]

    shared = outcomes(2, train)
    assert shared[0][0] == shared[1][0]
    assert (shared[0][0].alone_s is None) == lacks_memory
    assert shared[0][0].shared_s > 0
    for _, steps in shared:
        check_alike(steps, expected)


def test_sharing_pays_where_it_is_faster_or_one_process_lacks_memory() -> None:
    times = [StepTimes(9.9, 8.3), StepTimes(8.3, 9.9), StepTimes(None, 9.9)]
    assert [each.pays for each in times] == [True, False, True]
