"""A training that is interrupted, and resumes in another execution mode or on another device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nlijob.config import JobConfig, TrainConfig
from nlijob.gpu import checkpoints
from nlijob.gpu.fast import trainer
from nlijob.gpu.fast.graphs import Graphs
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.trainer import FastTrainer
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.training import PlainTrainer, Trainer, TrainingSchedule
from tests import broken_compilers, tolerance

pytestmark = pytest.mark.arithmetic

CONFIG = TrainConfig(epochs=2, batch_size=4, learning_rate=1e-3)
FUSED = {"dense": True, "recomputes": False}
FOUR_BIT = {"dense": False, "recomputes": False}
RECOMPUTED = {"dense": False, "recomputes": True}
PLAIN: dict[str, bool] = {}

NewTrainer = Callable[..., tuple[Any, LoadedModel]]
Interrupt = Callable[[Trainer, LoadedModel], dict[str, Any]]


@pytest.fixture(scope="module")
def rows(rows: list[Encoded]) -> list[Encoded]:
    return rows[:12]


@pytest.fixture
def new_trainer(
    demo: JobConfig,
    new_short_model: Callable[..., LoadedModel],
    head: CausalHead,
    rows: list[Encoded],
) -> NewTrainer:
    """Make a trainer for a fresh model whose layers can be fused."""
    lora = dataclasses.replace(demo.lora, target_modules=("q_proj", "k_proj", "v_proj", "dense"))
    fusible = dataclasses.replace(demo, lora=lora)

    def new(
        mode: dict[str, bool] = FUSED,
        at_once: int | None = None,
        job: JobConfig = fusible,
        **how: Any,
    ) -> tuple[Trainer, LoadedModel]:
        loaded = new_short_model(job)
        schedule = TrainingSchedule(dataclasses.replace(CONFIG, micro_batch_size=at_once), rows)
        if not mode:
            return PlainTrainer(loaded, head, schedule), loaded
        return FastTrainer(
            loaded, FastModel(loaded, head, **mode), schedule, at_once, **how
        ), loaded

    return new


@pytest.fixture
def stop_after_an_epoch(demo: JobConfig, tmp_path: Path) -> Interrupt:
    """Train one epoch and write a checkpoint; returns the state read from it."""

    def stop(first: Trainer, loaded: LoadedModel) -> dict[str, Any]:
        list(first.epoch(1))
        checkpoints.save_adapter(loaded.model, tmp_path, demo.model)
        checkpoints.save_state(first.state(), tmp_path / "state.pt")
        return checkpoints.load_state(tmp_path / "state.pt")

    return stop


def weights(loaded: LoadedModel) -> torch.Tensor:
    parts = checkpoints.adapter_weights(loaded.model).values()
    return torch.cat([part.detach().flatten() for part in parts])


def check_resumed(
    first: tuple[Trainer, LoadedModel],
    second: tuple[Trainer, LoadedModel],
    state: dict[str, Any],
    folder: Path,
) -> None:
    """Resume with `second`, and compare its second epoch with that of `first`, uninterrupted."""
    checkpoints.load_adapter(second[1].model, folder)
    start = weights(second[1]).clone()
    second[0].restore(state)
    expected, got = (list(trainer.epoch(2)) for trainer, _ in (first, second))
    assert [s.step for s in got] == [s.step for s in expected] == [4, 5, 6]
    bound = tolerance.training(6)
    assert [s.loss for s in got] == pytest.approx([s.loss for s in expected], rel=bound)
    # AdamW moves weights with a gradient near zero by up to the learning rate, in a direction that
    # rounding decides. They are few, so the norm over all weights changes little; lost moments or
    # a wrong step would change it by as much as the training did.
    change = (weights(first[1]) - start).norm()
    assert (weights(second[1]) - weights(first[1])).norm() < 0.1 * change


@pytest.mark.parametrize(
    ("begins", "resumes"),
    [
        ((FUSED, 4), (FUSED, 2)),
        ((FUSED, 2), (FUSED, 4)),
        ((RECOMPUTED, 2), (FUSED, 4)),
        ((FUSED, 4), (RECOMPUTED, 2)),
        ((FOUR_BIT, 4), (RECOMPUTED, 4)),
        ((PLAIN, 4), (FUSED, 2)),
        ((FUSED, 2), (PLAIN, 4)),
    ],
)
def test_training_resumes_with_another_micro_batch_and_in_another_mode(
    new_trainer: NewTrainer,
    stop_after_an_epoch: Interrupt,
    tmp_path: Path,
    begins: tuple[dict[str, bool], int],
    resumes: tuple[dict[str, bool], int],
) -> None:
    first, second = new_trainer(*begins), new_trainer(*resumes)
    fresh = getattr(second[0], "token_counts", None)
    check_resumed(first, second, stop_after_an_epoch(*first), tmp_path)
    assert getattr(second[0], "token_counts", None) == fresh


def test_training_resumes_with_another_shared_prefix(
    demo: JobConfig,
    new_trainer: NewTrainer,
    stop_after_an_epoch: Interrupt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = new_trainer()
    monkeypatch.setattr(trainer, "prefix_of_all", lambda rows, together: 1)
    second = new_trainer()
    assert (first[0].prefix, second[0].prefix) == (0, 1)
    fresh = second[0].token_counts
    check_resumed(first, second, stop_after_an_epoch(*first), tmp_path)
    assert second[0].token_counts == fresh


@pytest.mark.parametrize("resumes_on", ["GPU A", "GPU B"])
def test_pack_sizes_are_kept_on_the_same_kind_of_gpu_only(
    new_trainer: NewTrainer,
    stop_after_an_epoch: Interrupt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resumes_on: str,
) -> None:
    names = iter(["GPU A", resumes_on])
    monkeypatch.setattr(trainer, "device_name", lambda device: next(names))
    first, second = new_trainer(), new_trainer()
    fresh = second[0].token_counts
    as_measured_there = (fresh[-1] + 48,)
    state = {**stop_after_an_epoch(*first), "token_counts": as_measured_there}
    check_resumed(first, second, state, tmp_path)
    kept = resumes_on == "GPU A"
    assert second[0].token_counts == (as_measured_there if kept else fresh)
    assert (max(second[0].steps._packs) == as_measured_there[0]) == kept


def test_pack_sizes_are_ignored_if_the_state_does_not_say_what_they_were_chosen_for(
    new_trainer: NewTrainer, stop_after_an_epoch: Interrupt, tmp_path: Path
) -> None:
    first, second = new_trainer(at_once=2), new_trainer()
    state = stop_after_an_epoch(*first)
    del state["token_counts_chosen_for"]
    check_resumed(first, second, state, tmp_path)


@pytest.mark.parametrize(
    ("begins", "error"),
    [
        (FUSED, torch.OutOfMemoryError("CUDA out of memory")),
        (RECOMPUTED, RuntimeError("not permitted")),
    ],
)
def test_training_resumes_with_new_pack_sizes_if_the_saved_ones_cannot_be_captured(
    new_trainer: NewTrainer,
    stop_after_an_epoch: Interrupt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    begins: dict[str, bool],
    error: Exception,
) -> None:
    first, second = new_trainer(begins), new_trainer(begins)
    fresh = second[0].token_counts
    state = stop_after_an_epoch(*first)
    state["token_counts"] = (fresh[0], fresh[-1] + 48)
    left = iter([True])

    def full(self: Graphs, work: Callable[[], None]) -> Callable[[], None]:
        work()  # it has added to the gradient when it fails
        if next(left, False):
            return work
        raise error

    monkeypatch.setattr(Graphs, "capture", full)
    check_resumed(first, second, state, tmp_path)
    assert second[0].token_counts == fresh
    assert sorted(second[0].steps._packs) == list(fresh)


class TestCompiledLayers:
    """With adapters on all layers, so that none are fused; layers are traced, not compiled."""

    @pytest.fixture(autouse=True)
    def _traced_alone(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        broken_compilers.use("aot_eager", monkeypatch)
        broken_compilers.attend_as_on_a_gpu(monkeypatch)
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
        torch._dynamo.reset()

    @pytest.mark.parametrize("begins_compiled", [True, pytest.param(False, marks=pytest.mark.slow)])
    def test_training_resumes_with_compiled_layers_only_if_it_began_with_them(
        self,
        demo: JobConfig,
        new_trainer: NewTrainer,
        stop_after_an_epoch: Interrupt,
        tmp_path: Path,
        begins_compiled: bool,
    ) -> None:
        first = new_trainer(job=demo, compiles=begins_compiled)
        second = new_trainer(job=demo, compiles=not begins_compiled)
        check_resumed(first, second, stop_after_an_epoch(*first), tmp_path)
        assert second[0].steps.is_compiled == begins_compiled

    @pytest.mark.slow
    def test_training_resumes_if_layers_can_no_longer_be_compiled(
        self,
        demo: JobConfig,
        new_trainer: NewTrainer,
        stop_after_an_epoch: Interrupt,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        first = new_trainer(job=demo, compiles=True)
        state = stop_after_an_epoch(*first)
        assert state["is_compiled"]
        broken_compilers.use(broken_compilers.missing, monkeypatch)
        second = new_trainer(job=demo)
        check_resumed(first, second, state, tmp_path)
        assert not second[0].steps.is_compiled
        assert "no C compiler" in second[0].steps.why_not_compiled

    @pytest.mark.slow
    def test_compiled_layers_stay_if_others_cannot_be_captured(
        self,
        demo: JobConfig,
        new_trainer: NewTrainer,
        stop_after_an_epoch: Interrupt,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        first = new_trainer(job=demo)
        second = new_trainer(job=demo, compiles=True)
        state = stop_after_an_epoch(*first)

        def full(self: Graphs, work: Callable[[], None]) -> Callable[[], None]:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(Graphs, "capture", full)
        check_resumed(first, second, state, tmp_path)
        assert second[0].steps.is_compiled
