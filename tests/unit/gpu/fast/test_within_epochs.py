"""A training that is interrupted within an epoch has the outcome of one that nobody interrupted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nlijob.config import JobConfig, TrainConfig
from nlijob.gpu import checkpoints
from nlijob.gpu.fast import steps, trainer
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.trainer import FastTrainer
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import PlainTrainer, Trainer, TrainingSchedule
from nlijob.records.job import TrainStep
from tests import broken_compilers, tolerance
from tests.checkpointing import restore, written

pytestmark = pytest.mark.arithmetic

CONFIG = TrainConfig(epochs=2, batch_size=2, learning_rate=1e-3)
STEPS = 6
"""Steps of an epoch: 12 rows, two at a time."""
PLAIN: dict[str, bool] = {}
FUSED = {"dense": True, "recomputes": False}
FOUR_BIT = {"dense": False, "recomputes": False}
RECOMPUTED = {"dense": False, "recomputes": True}

New = Callable[..., tuple[Any, LoadedModel]]


@pytest.fixture
def new(
    demo: JobConfig,
    new_short_model: Callable[..., LoadedModel],
    head: CausalHead,
    rows: list[Encoded],
) -> New:
    """Make a trainer for a fresh model with dropout; its layers can be fused unless `job` says."""
    lora = dataclasses.replace(
        demo.lora, target_modules=("q_proj", "k_proj", "v_proj", "dense"), dropout=0.2
    )
    model = dataclasses.replace(demo.model, residual_dropout=0.1)
    fusible = dataclasses.replace(demo, lora=lora, model=model)

    def make(
        mode: dict[str, bool], at_once: int = 2, job: JobConfig = fusible, **how: Any
    ) -> tuple[Trainer, LoadedModel]:
        loaded = new_short_model(job)
        recomputes = how.pop("gradient_checkpointing", False)
        config = dataclasses.replace(
            CONFIG, micro_batch_size=at_once, gradient_checkpointing=recomputes
        )
        schedule = TrainingSchedule(config, rows[: STEPS * config.batch_size])
        if not mode:
            return PlainTrainer(loaded, head, schedule), loaded
        fast = FastModel(loaded, head, **mode)
        return FastTrainer(loaded, fast, schedule, at_once, **how), loaded

    return make


def after(count: int) -> Callable[[], bool]:
    """A `pause` that asks for one after so many steps."""
    asked = iter([False] * (count - 1) + [True])
    return lambda: next(asked)


def figures(done: list[TrainStep]) -> list[TrainStep]:
    """Everything about steps but their durations."""
    return [dataclasses.replace(step, duration_s=0.0) for step in done]


def weights(loaded: LoadedModel) -> torch.Tensor:
    parts = checkpoints.trained_weights(loaded.model).values()
    return torch.cat([part.detach().flatten().clone() for part in parts])


def uninterrupted(of: tuple[Trainer, LoadedModel]) -> tuple[list[TrainStep], torch.Tensor]:
    """All steps of two epochs, and the weights after them."""
    return figures([step for epoch in (1, 2) for step in of[0].epoch(epoch)]), weights(of[1])


def check_interrupted(make: Callable[[], tuple[Trainer, LoadedModel]], path: Path) -> None:
    """Interrupt the second epoch, and go on both with the same trainer and with a new one."""
    expected, final = uninterrupted(make())
    first = make()
    done = [*first[0].epoch(1), *first[0].epoch(2, pause=after(2))]
    assert len(done) == STEPS + 2
    content = written(first, path)
    assert figures([*done, *first[0].epoch(2, done=2)]) == expected
    assert torch.equal(weights(first[1]), final)
    second = make()
    list(second[0].epoch(1, pause=after(1)))  # whatever it did before
    restore(second, content)
    assert figures([*done, *second[0].epoch(2, done=2)]) == expected
    assert torch.equal(weights(second[1]), final)


@pytest.mark.parametrize(
    ("mode", "at_once"),
    [(PLAIN, 2), (PLAIN, 1), (FUSED, 2), (FUSED, 1), (FOUR_BIT, 2), (RECOMPUTED, 1)],
    ids=["plain", "plain, 1 row", "fused", "fused, 1 row", "4 bits", "recomputed, 1 row"],
)
def test_the_outcome_is_the_same_bit_for_bit(
    new: New, tmp_path: Path, mode: dict[str, bool], at_once: int
) -> None:
    check_interrupted(lambda: new(mode, at_once), tmp_path / "state.pt")


def test_the_outcome_is_the_same_in_a_plain_loop_with_gradient_checkpointing(
    new: New, tmp_path: Path
) -> None:
    check_interrupted(lambda: new(PLAIN, gradient_checkpointing=True), tmp_path / "state.pt")


def test_the_outcome_is_the_same_with_a_shared_prefix(
    new: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "prefix_of_all", lambda rows, together: 1)
    check_interrupted(lambda: new(FUSED), tmp_path / "state.pt")


@pytest.mark.slow
def test_the_outcome_is_the_same_with_compiled_layers(
    demo: JobConfig, new: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_compilers.use("aot_eager", monkeypatch)
    broken_compilers.attend_as_on_a_gpu(monkeypatch)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.reset()
    lora = dataclasses.replace(demo.lora, dropout=0.2)
    job = dataclasses.replace(demo, lora=lora)  # all layers adapted, so none are fused
    check_interrupted(lambda: new(FUSED, job=job, compiles=True), tmp_path / "state.pt")


@pytest.mark.parametrize(
    ("begins", "resumes"),
    [(PLAIN, FUSED), (FUSED, PLAIN), (RECOMPUTED, FUSED)],
)
def test_another_mode_resumes_within_an_epoch_up_to_rounding(
    demo: JobConfig, new: New, tmp_path: Path, begins: dict[str, bool], resumes: dict[str, bool]
) -> None:
    expected, _ = uninterrupted(new(begins, job=demo))
    first, second = new(begins, job=demo), new(resumes, job=demo)
    done = [*first[0].epoch(1), *first[0].epoch(2, pause=after(4))]
    restore(second, written(first, tmp_path / "state.pt"))
    got = [*done, *second[0].epoch(2, done=4)]
    assert [s.step for s in got] == [s.step for s in expected]
    assert [s.learning_rate for s in got] == [s.learning_rate for s in expected]
    bound = tolerance.training(2 * STEPS)
    assert [s.loss for s in got] == pytest.approx([s.loss for s in expected], rel=bound)


@pytest.mark.parametrize("mode", [PLAIN, FUSED], ids=["plain", "fused"])
def test_steps_after_a_resume_depend_on_the_state_of_dropout(
    new: New, tmp_path: Path, mode: dict[str, bool]
) -> None:
    way = new(mode)
    list(way[0].epoch(1, pause=after(2)))
    content = written(way, tmp_path / "state.pt")
    expected = figures(list(way[0].epoch(1, done=2)))
    restore(way, content)
    torch.manual_seed(7)
    assert figures(list(way[0].epoch(1, done=2))) != expected


def test_a_pause_waits_for_all_steps_in_flight(new: New, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps._HostEvent, "query", lambda event: False)  # as on a busy GPU
    way, _ = new(FUSED)
    seen: list[tuple[int, int]] = []

    def watched() -> Iterator[TrainStep]:
        for step in way.epoch(1, pause=after(3)):
            seen.append((step.step, way.state()["step"]))
            yield step

    assert [step.step for step in watched()] == [1, 2, 3]
    assert seen[-1] == (3, 3)


def test_an_epoch_whose_steps_are_all_done_trains_nothing(new: New) -> None:
    way, loaded = new(PLAIN)
    before = weights(loaded)
    assert list(way.epoch(1, done=STEPS)) == []
    assert torch.equal(weights(loaded), before)
