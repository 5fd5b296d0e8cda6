"""A job in a group of processes: its figures are those of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nlijob import records
from nlijob.gpu.group import ALONE, Group
from nlijob.gpu.model import quiet_libraries
from nlijob.gpu.worker import do_job
from nlijob.records.job import Plan
from nlijob.rundir import RunDir
from tests.groups import in_group
from tests.stages import given, new_run, steps

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


def job(group: Group, run: Path, **settings: Any) -> None:
    """What each process does."""
    quiet_libraries()
    do_job(RunDir(run), group)


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


@pytest.mark.parametrize("size", [2, 3])
def test_a_group_in_which_one_trains_gives_the_figures_of_one_process(
    tmp_path: Path, alone: RunDir, size: int
) -> None:
    run = done(tmp_path / "job", size, machine__share="none")
    assert steps(run) == steps(alone)
    assert figures(run) == figures(alone)
    assert records.read(Plan, run.plan).processes == size


def test_trainings_side_by_side_give_the_figures_of_one_after_the_other(tmp_path: Path) -> None:
    one = done(tmp_path / "one", 1, train__seeds=3)
    both = done(tmp_path / "both", 2, train__seeds=3)
    for seed in (42, 43, 44):
        views = [run.view(f"trials/seed-{seed}") for run in (one, both)]
        assert steps(views[0]) == steps(views[1])
        assert figures_of_training(views[0]) == figures_of_training(views[1])
    assert figures(one) == figures(both)


def figures_of_training(view: RunDir) -> list[bytes]:
    return [file.read_bytes() for file in (view.selection, view.evaluate_predictions)]
