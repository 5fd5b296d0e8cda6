"""The share of a job that is done, and the time that it still takes."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from nlijob import records, remaining
from nlijob.config import JobConfig
from nlijob.records.job import Progress, RunRecord
from nlijob.records.transfer import Elsewhere
from nlijob.remaining import Outlook, Remaining, remaining_work
from nlijob.rundir import RunDir, write_record
from nlijob.trials import steps_of
from tests.clock import Clock
from tests.synthetic import Spec, build_run, mark_stages

ROWS, TRAIN_ROWS = 98, 400


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(remaining, "time", clock)
    return clock


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run of 400 training rows, 98 validation and 98 test rows, and 2 epochs."""
    spec = Spec(rows=ROWS, train_rows=TRAIN_ROWS, epochs=2, few_shot=0)
    run = build_run(tmp_path_factory.mktemp("runs") / "run", spec)
    mark_stages(run)
    return run


def config_of(run: RunDir, seeds: int = 1) -> JobConfig:
    config = records.read(RunRecord, run.config).config
    plain = dataclasses.replace(config.eval, word_importance=False, blank_premise=False)
    train = dataclasses.replace(config.train, seeds=seeds)
    return dataclasses.replace(config, eval=plain, train=train)


def all_work(run: RunDir, seeds: int = 1, done: Iterable[str] = ()) -> Remaining:
    """What is left of a run of which only these stages, and no epochs, are complete."""
    config = config_of(run, seeds)
    missing = {step.key for step in steps_of(config)} - set(done)
    found = remaining_work(run, config, missing)
    assert found is not None
    return found


def told(stage: str, part: str, done: int, total: int, process: int = 0) -> Progress:
    return Progress(stage, part, done, total, "rows", process=process)


def train(
    left: Remaining, clock: Clock, per_s: int, part: str = "epoch 1", process: int = 0
) -> Outlook:
    """Report ten seconds of training at this speed."""
    left.after(told("train", part, 0, TRAIN_ROWS, process))
    clock.now += 10
    outlook = left.after(told("train", part, 10 * per_s, TRAIN_ROWS, process))
    assert outlook is not None
    return outlook


def score(left: Remaining, clock: Clock) -> None:
    """Report how the baseline was scored, at 49 rows a second from the first batch on."""
    left.after(told("baseline", "test", 0, ROWS))
    clock.now += 2
    left.after(told("baseline", "test", ROWS, ROWS))
    left.after(told("baseline", "validation", 0, ROWS))
    clock.now += 2
    left.after(told("baseline", "validation", ROWS, ROWS))


@pytest.fixture
def fresh(run: RunDir, tmp_path: Path) -> RunDir:
    """A run of which only the rows are selected."""
    found = RunDir(tmp_path / "run")
    for folder in (run.manifest.parent, run.elsewhere_manifest.parent):
        shutil.copytree(folder, found.root / folder.name)
    shutil.copy(run.config, found.config)
    return found


def test_the_time_left_is_that_of_all_rows_at_the_speeds_measured(
    fresh: RunDir, clock: Clock
) -> None:
    left = all_work(fresh)
    score(left, clock)
    outlook = train(left, clock, per_s=10)
    # 700 rows to train on, 10 a second; 2 x 196 after the epochs and 196 at the end, 49 a second
    assert outlook.left == "about 1 min 30 s left"


def test_nothing_is_told_of_the_time_before_training_was_measured(
    fresh: RunDir, clock: Clock
) -> None:
    left = all_work(fresh)
    score(left, clock)
    outlook = left.after(told("train", "epoch 1", 8, TRAIN_ROWS))
    assert outlook is not None
    assert outlook.left == ""


def test_where_scoring_was_not_measured_the_time_is_a_lower_bound(
    fresh: RunDir, clock: Clock
) -> None:
    left = all_work(fresh, done=("baseline",))
    assert train(left, clock, per_s=10).left == "at least 1 min 10 s left"


def test_where_tasks_are_to_be_done_the_time_is_a_lower_bound(fresh: RunDir, clock: Clock) -> None:
    write_record(fresh.elsewhere_manifest, Elsewhere(tasks=("hellaswag",)))
    left = all_work(fresh)
    score(left, clock)
    assert train(left, clock, per_s=10).left.startswith("at least")


def test_the_share_done_never_falls_and_ends_at_all(fresh: RunDir, clock: Clock) -> None:
    left = all_work(fresh)
    parts = [(unit.stage, unit.part, unit.left) for unit in left.units]
    shares = []
    for stage, part, rows in parts:
        for done in (0, rows // 2, rows):
            outlook = left.after(told(stage, part, done, rows))
            assert outlook is not None
            shares.append(outlook.share)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_a_resumed_epoch_counts_only_its_remaining_rows(fresh: RunDir, clock: Clock) -> None:
    left = all_work(fresh)
    left.after(told("train", "epoch 2 from step 31", 0, 160))
    epochs = {unit.part: unit.left for unit in left.units if unit.kind == "train"}
    assert epochs == {"epoch 1": 0, "epoch 2": 160}


def test_complete_stages_and_epochs_are_no_work(run: RunDir) -> None:
    assert run.count_marked_epochs() == 2
    found = remaining_work(run, config_of(run), {"train", "select", "evaluate", "explain"})
    assert found is not None
    assert {unit.stage for unit in found.units} == {"evaluate"}


def test_trainings_side_by_side_share_the_work(fresh: RunDir, clock: Clock) -> None:
    left = all_work(fresh, seeds=4, done=("baseline",))
    for process in (0, 1):
        left.after(told("train", f"seed-{42 + process}: epoch 1", 0, TRAIN_ROWS, process))
    clock.now += 10
    for process in (0, 1):
        outlook = left.after(told("train", f"seed-{42 + process}: epoch 1", 100, 400, process))
    assert outlook is not None
    # 4 trainings of 800 rows, of which 200 are done, at 2 x 10 a second
    assert outlook.left == "at least 2 min 30 s left"


def test_the_last_training_is_done_by_one_process_alone(fresh: RunDir, clock: Clock) -> None:
    left = all_work(fresh, seeds=2, done=("baseline",))
    train(left, clock, 40, "seed-42: epoch 2", process=0)
    outlook = train(left, clock, 10, "seed-43: epoch 1", process=1)
    # 700 rows of seed 43 at its own 10 a second, not at the 50 of both
    assert outlook.left == "at least 1 min 10 s left"


def test_nothing_is_told_of_a_job_whose_search_is_to_come(run: RunDir) -> None:
    assert remaining_work(run, config_of(run), {"search", "train"}) is None
