"""What `plan` says of a job is what the job then does."""

from __future__ import annotations

from pathlib import Path

import pytest

from nlijob.gpu.look import look
from nlijob.hub import Hub
from nlijob.planning import plan as planning
from nlijob.records.outcome import Results
from nlijob.records.planning import JobPlan
from nlijob.rundir import RunDir
from tests import jobs


@pytest.fixture
def outcome(job: RunDir) -> Results:
    return jobs.results(job)


@pytest.fixture
def plan(outcome: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobPlan:
    """The plan of the finished job, made in this process."""
    monkeypatch.setattr(planning, "look", look)
    run = RunDir(tmp_path / "job")
    wanted = planning.Wanted("demo", outcome.run.config, run, Hub(False, print), print)
    return planning.make_plan(wanted, [])


def test_a_plan_says_what_the_job_does(plan: JobPlan, outcome: Results) -> None:
    rows = {split.split: split.rows for split in outcome.manifest.splits.values()}
    assert {split: planned.rows for split, planned in plan.rows.items()} == rows
    assert plan.optimizer_steps == sum(epoch.steps for epoch in outcome.epochs)
    assert plan.look.trainable_parameters == outcome.parameters.trainable
    assert plan.look.target_modules == outcome.parameters.matched_modules
    prompt = outcome.prompt
    assert plan.look.label_tokens == prompt.label_tokens
    assert plan.look.example_prompt == prompt.example_prompt
    counts = plan.look.tokens
    assert {split: count.mean for split, count in counts.items()} == prompt.mean_tokens
    assert {split: count.longest for split, count in counts.items()} == prompt.longest_tokens
    assert plan.look.compute_dtype == outcome.environment.compute_dtype
