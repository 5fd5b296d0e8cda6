"""The demo with three trainings, from a finished run with one: the whole job and its page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nlijob import records
from nlijob.records.job import Choice, Prediction, of_split
from nlijob.rundir import RunDir
from tests import jobs
from tests.in_process import Shown

pytestmark = pytest.mark.slow


def answers(view: RunDir) -> list[Prediction]:
    return list(records.read_lines(Prediction, view.evaluate_predictions))


def test_a_finished_demo_is_given_two_more_trainings_which_are_those_of_runs_of_their_own(
    job: RunDir, copied: RunDir, nlijob_here: Callable[..., Shown], tmp_path: Path
) -> None:
    where = ("--runs-dir", copied.root.parent, "--run-id", copied.root.name)
    shown = nlijob_here("run", *where, *jobs.SMALL_DEMO, "--seeds", "3")
    assert shown.code == 0, shown.err
    assert "mean of 3 trainings" in shown.out
    alone = {42: job}
    for seed in (43, 44):
        of_seed = ("--runs-dir", tmp_path / "alone", "--run-id", str(seed), "--seed", str(seed))
        assert nlijob_here("run", *of_seed, *jobs.SMALL_DEMO).code == 0
        alone[seed] = RunDir(tmp_path / "alone" / str(seed))
    results = jobs.results(copied)
    assert results.trials is not None
    for trial in results.trials.trials:
        view = copied.view(f"trials/{trial.name}")
        assert answers(view) == answers(alone[trial.seed])
        own = jobs.results(alone[trial.seed])
        assert (trial.correct, trial.loss) == (own.tuned.correct, own.tuned.loss)
        assert trial.selection == own.selection
        assert trial.change.difference == own.gain
    choice = records.read(Choice, copied.choice)
    assert choice.trial == results.trials.kept
    kept = of_split(answers(copied.view(f"trials/{choice.trial}")), "test")
    assert results.tuned.correct == sum(row.is_right for row in kept)
    page = copied.report.read_text("utf-8")
    assert 'id="trainings"' in page
    assert all(f"seed-{seed}" in page for seed in alone)

    again = nlijob_here("run", *where, *jobs.SMALL_DEMO, "--seeds", "3")
    assert again.code == 0
    assert "starting the model's process" not in again.out + again.err
    assert copied.report.read_text("utf-8") == page
