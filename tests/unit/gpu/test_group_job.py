"""A job in a group of processes: its figures are those of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nlijob import records
from nlijob.completeness import is_complete
from nlijob.gpu import session as gpu_session
from nlijob.gpu.group import ALONE, Group
from nlijob.gpu.model import quiet_libraries
from nlijob.gpu.worker import do_job
from nlijob.records.job import EpochResult, Plan, Timing, WorkerTask
from nlijob.records.search import CandidateResult
from nlijob.rundir import RunDir
from nlijob.stopping import Stopped
from tests.groups import in_group
from tests.loading import Loader
from tests.stages import TRAIN_STAGE, given, new_run, steps

SETTINGS: dict[str, Any] = {
    "eval.generate_tokens": 3,
    "eval.word_importance": True,
    "eval.blank_premise": True,
    "eval.few_shot": 2,
    "eval.batch_size": 3,
    "train.checkpoint_every_s": 0,
    "train.keep": "all",
    "lora.dropout": 0.0,
}


def job(group: Group, *folders: Path) -> None:
    """What each process does, in its own folder; the last one is for all that are left.

    One layer of the demo's model is enough.
    """
    quiet_libraries()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_session, "load", Loader(layers=1))
        do_job(RunDir(folders[min(group.rank, len(folders) - 1)]), group)


def done(root: Path, size: int, **settings: Any) -> RunDir:
    """A run done by this many processes."""
    run = new_run(root)
    given(run, **{**SETTINGS, **settings})
    if size == 1:
        job(ALONE, root)
    else:
        in_group(size, job, root)
    return run


SCORES = ("baseline", "evaluate")
RATES = [1e-4, 1e-3, 3e-3]
TRIALS = [f"trials/seed-{seed}" for seed in (42, 43, 44)]


def figures(run: RunDir) -> dict[str, bytes]:
    """All answers and texts of a run."""
    files = [
        *(file for stage in SCORES for file in (run.root / stage).glob("*.jsonl")),
        *(run.blank_premise_predictions, run.generations, run.occlusion),
    ]
    return {run.name(file): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return done(tmp_path_factory.mktemp("alone") / "job", 1)


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_group_in_which_one_trains_gives_the_figures_of_one_process(
    tmp_path: Path, alone: RunDir, size: int
) -> None:
    run = done(tmp_path / "job", size, machine__share="none")
    assert steps(run) == steps(alone)
    assert figures(run) == figures(alone)
    assert records.read(Plan, run.plan).processes == size


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_group_that_shares_each_step_trains_as_one_process_does(
    tmp_path: Path, alone: RunDir, size: int
) -> None:
    run = done(tmp_path / "job", size, machine__share="steps")
    expected, got = ([step.loss for step in steps(one)] for one in (alone, run))
    assert got == pytest.approx(expected, rel=1e-4)
    plan = records.read(Plan, run.plan)
    assert (plan.processes, plan.share) == (size, "steps")


def test_a_training_goes_on_with_another_number_of_processes(tmp_path: Path, alone: RunDir) -> None:
    run = new_run(tmp_path / "job")
    given(run, **{**SETTINGS, "machine.share": "steps"})
    in_group(2, stopped_job, run.root)
    assert run.epoch_result(1).exists()
    assert not run.train_result.exists()
    in_group(3, job, run.root)
    expected, got = ([step.loss for step in steps(one)] for one in (alone, run))
    assert got == pytest.approx(expected, rel=1e-4)


def stopped_job(group: Group, run: Path) -> None:
    """A job whose lead is stopped once it has trained the second epoch."""
    save_epoch = TRAIN_STAGE.save_epoch

    def saved(session: Any, trainer: Any, result: EpochResult, *more: Any) -> None:
        if result.epoch == 2:
            raise Stopped("as a test wants it")
        save_epoch(session, trainer, result, *more)

    TRAIN_STAGE.save_epoch = saved  # type: ignore[attr-defined]  # of this process alone
    try:
        job(group, run)
    except Stopped:
        group.share(None)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run with three trainings, done by one process."""
    return done(tmp_path_factory.mktemp("three") / "job", 1, train__seeds=3)


def test_trainings_side_by_side_give_the_figures_of_one_after_the_other(
    tmp_path: Path, three: RunDir
) -> None:
    both = done(tmp_path / "both", 2, train__seeds=3)
    assert figures(both) == figures(three)
    assert trainings(both) == trainings(three)
    assert {records.read(Plan, both.view(trial).plan).share for trial in TRIALS} == {"trials"}


def test_a_process_without_the_runs_folder_gets_the_rows_and_hands_over_its_trainings(
    tmp_path: Path, three: RunDir
) -> None:
    run, other = new_run(tmp_path / "job"), RunDir(tmp_path / "other")
    for attempt, one in enumerate((run, other), 1):
        given(one, attempt, **{**SETTINGS, "train.seeds": 3})
    in_group(3, job, run.root, other.root)
    assert figures(run) == figures(three)
    assert trainings(run) == trainings(three)
    inputs = records.read(WorkerTask, run.worker_task).inputs
    assert all(is_complete(run, key, inputs) for key in inputs if key.startswith("trials/"))
    timings = records.read_log(Timing, run.timings).records
    assert {timing.attempt for timing in timings} == {1}
    whole = [(t.trial, t.stage) for t in timings if t.stage == "select" and not t.part]
    assert sorted(whole) == [(f"seed-{seed}", "select") for seed in (42, 43, 44)]


@pytest.mark.slow
def test_candidates_of_a_search_are_trained_side_by_side(tmp_path: Path) -> None:
    searched: dict[str, Any] = {
        "sweep.space": {"train.learning_rate": RATES},
        "machine.share": "trials",
    }
    one, both = (done(tmp_path / str(size), size, **searched) for size in (1, 2))
    assert results(one) == results(both)
    assert both.winner.read_bytes() == one.winner.read_bytes()


def results(run: RunDir) -> list[object]:
    """The losses of all candidates."""
    names = sorted(folder.name for folder in run.winner.parent.glob("candidate-*"))
    assert len(names) == len(RATES)
    found = [records.read(CandidateResult, run.candidate_result(name)) for name in names]
    return [
        (one.settings, [(e.train_loss, e.validation.loss) for e in one.epochs]) for one in found
    ]


def trainings(run: RunDir) -> list[object]:
    """All steps and answers of the trainings."""
    views = [run.view(trial) for trial in TRIALS]
    return [
        (steps(view), view.selection.read_bytes(), view.evaluate_predictions.read_bytes())
        for view in views
    ]
