"""A search within a run: its candidates, what it scores, and what follows from its outcome."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from nlijob import records
from nlijob.errors import DivergedError, ExitCode
from nlijob.gpu import worker
from nlijob.records.job import EpochResult, Prediction, RunRecord, Timing, of_split
from nlijob.records.search import CandidateResult, Winner
from nlijob.rundir import RunDir
from nlijob.stopping import Stopped
from nlijob.sweep import combinations
from tests.stages import configuration, new_run, steps, work

pytestmark = pytest.mark.usefixtures("written_at_once")

SEARCH_STAGE = importlib.import_module("nlijob.gpu.stages.search")
SPACE = {"lora.target_modules": ("attention", "mlp"), "train.learning_rate": (1e-3, 3e-3, 1e-2)}
SEED = 1042
QUICK: dict[str, Any] = {"train__batch_size": 6, "train__checkpoint_every_s": 0.0}
SEARCH: dict[str, Any] = {**QUICK, "sweep__space": SPACE, "sweep__pruning": True}
NAMES = [f"candidate-{number}" for number in range(1, 7)]
PRUNED = NAMES[4]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run whose search has six candidates, of which the fifth falls behind."""
    run = new_run(tmp_path_factory.mktemp("searched") / "job")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SEARCH_STAGE, "is_behind", fifth_is_behind)
        work(run, **SEARCH)
    return run


def fifth_is_behind(_: Sequence[EpochResult], earlier: Sequence[CandidateResult]) -> bool:
    return len(earlier) == NAMES.index(PRUNED)


def result(run: RunDir, name: str) -> CandidateResult:
    return records.read(CandidateResult, run.candidate_result(name))


def timeless(one: CandidateResult) -> CandidateResult:
    """The result without what differs from time to time."""
    epochs = tuple(map(figures, one.epochs))
    return dataclasses.replace(one, duration_s=0.0, epochs=epochs)


def figures(epoch: EpochResult) -> EpochResult:
    validation = dataclasses.replace(epoch.validation, duration_s=0.0)
    return dataclasses.replace(epoch, duration_s=0.0, validation=validation, test=None)


def answers(path: Path) -> list[Prediction]:
    return of_split(records.read_lines(Prediction, path), "validation")


@pytest.mark.parametrize("name", [NAMES[2], NAMES[3]])
def test_a_candidate_has_the_figures_of_a_run_with_its_settings_and_seed_alone(
    searched: RunDir, tmp_path: Path, name: str
) -> None:
    one = result(searched, name)
    alone = new_run(tmp_path / "job")
    settings: dict[str, Any] = {
        key.replace(".", "__"): value for key, value in one.settings.items()
    }
    work(alone, **QUICK, **settings, train__seed=SEED)
    of_alone = [records.read(EpochResult, alone.epoch_result(epoch)) for epoch in (1, 2)]
    assert [*map(figures, one.epochs)] == [*map(figures, of_alone)]
    assert one.selection is not None
    expected = answers(alone.epoch_predictions(one.selection.epoch))
    assert answers(searched.candidate_predictions(name)) == expected


def test_all_combinations_are_tried_and_those_of_a_shape_follow_each_other(
    searched: RunDir,
) -> None:
    found = [result(searched, name) for name in NAMES]
    modules = [one.settings["lora.target_modules"] for one in found]
    assert modules == ["attention"] * 3 + ["mlp"] * 3
    assert {tuple(one.settings.values()) for one in found} == {
        (part, rate) for part in ("attention", "mlp") for rate in SPACE["train.learning_rate"]
    }
    parts = [line.part for line in records.read_log(Timing, searched.timings).records]
    assert parts.count("adapter replaced") <= 3  # not one a candidate


def test_a_candidate_that_falls_behind_is_stopped_after_an_epoch(searched: RunDir) -> None:
    states = {name: result(searched, name).state for name in NAMES}
    assert states == {name: "pruned" if name == PRUNED else "complete" for name in NAMES}
    assert len(result(searched, PRUNED).epochs) == 1


def test_a_search_scores_no_test_row(searched: RunDir) -> None:
    for name in NAMES:
        assert all(epoch.test is None for epoch in result(searched, name).epochs)
        predictions = records.read_lines(Prediction, searched.candidate_predictions(name))
        assert {one.split for one in predictions} == {"validation"}
    timings = records.read_log(Timing, searched.timings).records
    scored = {line.split for line in timings if line.stage == "search" and line.kind == "scoring"}
    assert scored == {"validation"}


def test_the_run_goes_on_with_the_best_settings_on_another_seed(
    searched: RunDir, tmp_path: Path
) -> None:
    winner = records.read(Winner, searched.winner)
    complete = [one for name in NAMES if (one := result(searched, name)).state == "complete"]
    chosen = {one.name: one.selection for one in complete if one.selection}
    best = max(
        chosen, key=lambda name: (chosen[name].validation_accuracy, -chosen[name].validation_loss)
    )
    assert winner.name == best
    config = records.read(RunRecord, searched.config).config
    assert {key: config.value(key) for key in SPACE} == winner.settings
    assert (config.train.seed, config.sweep.seed) == (42, SEED)
    alone = new_run(tmp_path / "job")
    settings: dict[str, Any] = {
        key.replace(".", "__"): value for key, value in winner.settings.items()
    }
    work(alone, **QUICK, **settings)
    assert steps(searched) == steps(alone)
    assert searched.evaluate_predictions.read_bytes() == alone.evaluate_predictions.read_bytes()


def test_a_search_that_was_stopped_goes_on_at_the_candidate_in_hand(
    searched: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(shutil.copytree(searched.root, tmp_path / "copy"))
    for name in NAMES[4:]:
        run.unmark(f"search/{name}")
    run.unmark("search")
    record = records.read(RunRecord, run.config)

    def stopped(*_: Any) -> None:
        raise Stopped("as a test wants it")

    with monkeypatch.context() as patch:
        patch.setattr(SEARCH_STAGE, "winner_of", stopped)
        patch.setattr(SEARCH_STAGE, "is_behind", fifth_is_behind)
        with pytest.raises(Stopped):
            work(run, **SEARCH)
    assert result(run, PRUNED).state == "pruned"
    shown = work(run, attempt=2, **SEARCH)
    assert [line for line in shown if line.startswith("candidate-") and "skipped" in line] == [
        f"{name}: complete, skipped" for name in NAMES
    ]
    assert shown.count("complete, skipped") == 5  # the baseline, and all that follows the search
    for name in NAMES:
        assert timeless(result(run, name)) == timeless(result(searched, name))
    assert records.read(RunRecord, run.config).config == record.config


def test_a_candidate_that_diverges_does_not_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path / "job")
    optimize = SEARCH_STAGE._optimize

    def diverging(session: Any, trainer: Any, name: str, epoch: int) -> Any:
        if name == "candidate-1" and epoch == 2:
            raise DivergedError("training diverged, as a test wants it")
        return optimize(session, trainer, name, epoch)

    monkeypatch.setattr(SEARCH_STAGE, "_optimize", diverging)
    space = {"train.learning_rate": (1e-3, 2e-3)}
    shown = work(run, **{**QUICK, "sweep__space": space})
    assert "candidate-1: train.learning_rate 0.001: failed (training diverged" in str(shown)
    assert result(run, "candidate-1").state == "failed"
    assert records.read(Winner, run.winner).name == "candidate-2"


def test_a_candidate_that_memory_does_not_suffice_for_does_not_end_the_search(
    searched: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path / "job")
    optimize = SEARCH_STAGE._optimize

    def limited(session: Any, trainer: Any, name: str, epoch: int) -> Any:
        if name == NAMES[0] and epoch == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return optimize(session, trainer, name, epoch)

    monkeypatch.setattr(SEARCH_STAGE, "_optimize", limited)
    space = {"train.learning_rate": (1e-3, 3e-3)}
    shown = work(run, **{**QUICK, "sweep__space": space}, lora__target_modules="attention")
    first, second = (result(run, name) for name in NAMES[:2])
    assert (first.state, len(first.epochs)) == ("failed", 1)
    assert f"failed ({first.reason})" in str(shown)
    assert "out of memory" in first.reason
    # the next one begins with a new adapter, as if nothing had been before it
    assert timeless(second).epochs == timeless(result(searched, NAMES[1])).epochs
    assert records.read(Winner, run.winner).name == NAMES[1]
    assert not run.marker(f"search/{NAMES[0]}").exists()  # so that it is tried again
    assert run.marker(f"search/{NAMES[1]}").exists()


def test_modules_that_the_model_does_not_have_are_refused_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    run = new_run(tmp_path / "job")
    with pytest.raises(AssertionError):
        work(run, **{**QUICK, "sweep__space": {"lora.target_modules": ("attention", "nowhere")}})
    outcome = worker.work(run)
    assert outcome.exit_code == ExitCode.CONFIGURATION
    assert "no linear module of the model is named nowhere" in outcome.message
    assert run.marked() == []


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="Optuna is not installed (extra sweep)"
)
def test_candidates_that_optuna_chooses_are_chosen_again_when_the_run_goes_on(
    tmp_path: Path,
) -> None:
    run = new_run(tmp_path / "job")
    space = {"lora.r": "2..4", "train.learning_rate": "1e-4..1e-2:log"}
    search: dict[str, Any] = {**QUICK, "sweep__space": space, "sweep__trials": 3}
    work(run, **search, train__epochs=1)
    before = [timeless(result(run, name)) for name in NAMES[:3]]
    run.unmark("search")
    run.unmark(f"search/{NAMES[2]}")
    shown = work(run, attempt=2, **search, train__epochs=1)
    assert [f"{name}: complete, skipped" in shown for name in NAMES[:3]] == [True, True, False]
    assert [timeless(result(run, name)) for name in NAMES[:3]] == before


def test_candidates_have_the_searchs_seed_and_no_search_of_their_own() -> None:
    config = configuration(**SEARCH)
    assert {one.config.train.seed for one in combinations(config)} == {SEED}
    assert all(not one.config.sweep.space for one in combinations(config))
