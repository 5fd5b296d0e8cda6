"""How many GPUs a job takes if it may choose: as many as save time, with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nlijob.config import JobConfig, load_config
from nlijob.demo import DATA_DIR
from nlijob.planning.processes import DEMO_ROWS, Work, plan_processes, work_left
from nlijob.records.job import Inputs
from nlijob.records.planning import PlannedProcesses
from nlijob.rundir import RunDir, candidate_marker
from nlijob.trials import trials_of
from tests.synthetic import Spec, build_run

SMALL = Work(trainings=1, trained_rows=5_000, scored_rows=1_600, batch_size=8)
DONE = Inputs({}, {}, "")


def config(recipe: str = "phi2", device: str = "cuda", **settings: Any) -> JobConfig:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return load_config(recipe, {"model.device": device, **named})


def chosen(recipe: str = "phi2", gpus: int = 4, **settings: Any) -> PlannedProcesses:
    """The choice for a job of which nothing is done yet."""
    wanted = config(recipe, **settings)
    return plan_processes(wanted, gpus, work_left(wanted, RunDir(Path("/nowhere"))))


def number(work: Work, gpus: int = 4, **settings: Any) -> int:
    return plan_processes(config(**settings), gpus, work).number


@pytest.mark.parametrize("recipe", ["demo", "phi2", "multinli"])
def test_a_small_job_takes_one_gpu(recipe: str) -> None:
    planned = chosen(recipe)
    assert (planned.number, planned.visible) == (1, 4)
    assert planned.reason.startswith("a second GPU would not be worth its start: about ")


@pytest.mark.parametrize(("seeds", "gpus", "taken"), [(3, 4, 3), (8, 4, 4), (8, 1, 1), (2, 2, 2)])
def test_each_training_gets_a_gpu_where_there_are_as_many(
    seeds: int, gpus: int, taken: int
) -> None:
    planned = chosen(gpus=gpus, train__seeds=seeds)
    assert planned.number == taken
    if gpus > 1:
        assert planned.reason == f"{seeds} trainings can be done side by side"


def test_candidates_of_all_combinations_are_done_side_by_side() -> None:
    grid = {"lora.r": [4, 8, 16]}
    assert chosen(sweep__space=grid).number == 3


def test_candidates_that_follow_from_each_other_take_one_gpu() -> None:
    space = {"train.learning_rate": "1e-5..1e-3:log"}
    assert chosen(sweep__space=space, sweep__trials=6).number == 1
    assert chosen(sweep__space={"lora.r": [4, 8, 16]}, sweep__pruning=True).number == 1


def test_many_rows_to_score_pay_for_further_gpus() -> None:
    many = Work(trainings=1, trained_rows=5_000, scored_rows=100_000, batch_size=8)
    assert number(many) == 3
    assert number(many, gpus=2) == 2


@pytest.mark.parametrize(("batch", "taken"), [(8, 1), (16, 2), (64, 4)])
def test_steps_are_shared_where_each_gpu_has_enough_rows_of_them(batch: int, taken: int) -> None:
    work = Work(trainings=1, trained_rows=50_000, scored_rows=1_000, batch_size=batch)
    assert number(work) == taken


def test_steps_of_a_short_training_are_not_shared() -> None:
    assert number(Work(trainings=1, trained_rows=5_000, scored_rows=1_000, batch_size=64)) == 1


@pytest.mark.parametrize("share", ["steps", "none"])
def test_trainings_that_may_not_be_done_side_by_side_take_no_gpus(share: str) -> None:
    assert chosen(train__seeds=4, machine__share=share).number == 1


def test_a_training_of_all_rows_is_worth_every_gpu() -> None:
    planned = chosen(gpus=8, train__batch_size=64, data__train_stride=1, data__test_stride=1)
    assert planned.number == 8


def test_a_number_that_is_asked_for_is_taken() -> None:
    assert chosen(machine__gpus=3) == PlannedProcesses(3, 4, "machine.gpus is 3")
    assert number(SMALL, machine__gpus=2) == 2
    assert chosen(machine__gpus=5).reason == "machine.gpus is 5, more than are visible"


def test_on_a_cpu_there_is_one_process_unless_more_are_asked_for() -> None:
    assert chosen("demo", 0, device="cpu", train__seeds=4).number == 1
    assert chosen("demo", 0, device="cpu", machine__gpus=2).number == 2


def test_trainings_that_are_complete_take_no_gpu(tmp_path: Path) -> None:
    run, wanted = RunDir(tmp_path), config(train__seeds=4)
    for trial in trials_of(wanted)[:2]:
        run.of_trial(trial).mark_complete("evaluate", DONE, [])
    assert work_left(wanted, run).trainings == 2
    for trial in trials_of(wanted)[2:]:
        run.of_trial(trial).mark_complete("evaluate", DONE, [])
    assert work_left(wanted, run).trainings == 4  # of other inputs, or there is nothing to do


def test_candidates_that_are_complete_take_no_gpu(tmp_path: Path) -> None:
    run, wanted = RunDir(tmp_path), config(sweep__space={"lora.r": [4, 8, 16]})
    run.mark_complete(candidate_marker("candidate-1"), DONE, [])
    assert work_left(wanted, run).trainings == 2
    run.mark_complete("search", DONE, [])
    assert work_left(wanted, run).trainings == 1


def test_rows_that_are_in_the_folder_are_counted(tmp_path: Path) -> None:
    run, wanted = build_run(tmp_path, Spec(train_rows=40, epochs=2)), config(train__epochs=3)
    assert work_left(wanted, run).trained_rows == 3 * 40


def test_the_rows_of_the_demo_are_known() -> None:
    for split, rows in DEMO_ROWS.items():
        lines = (DATA_DIR / f"{split}.jsonl").read_text("utf-8").splitlines()
        assert len(lines) == rows
