"""The start of the GPU side is recorded by its parts, and the benchmark adds them up."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.start import WHOLE, Spent, figures_of, until_first_step
from nlijob import records
from nlijob.gpu.reporting import Reporter
from nlijob.gpu.start_parts import CONTEXT, FROM_LAUNCH, LAUNCHER, LIBRARIES, report_start
from nlijob.records.job import Timing, WorkerStart, WorkerTask
from nlijob.rundir import RunDir, write_record, write_text
from tests import synthetic


@pytest.mark.parametrize("context_s", [0.5, None])
def test_the_start_is_reported_by_its_parts(tmp_path: Path, context_s: float | None) -> None:
    run = RunDir(tmp_path)
    write_record(run.worker_start, WorkerStart(102.0, 105.0, context_s))
    task = WorkerTask(1, 0.0, 0.0, "", "", {}, launched_monotonic_s=100.0)
    report_start(run, task, Reporter(run, attempt=1))
    parts = {one.part: one for one in records.read_log(Timing, run.timings).records}
    assert (parts[LAUNCHER].started_monotonic_s, parts[LAUNCHER].duration_s) == (100.0, 2.0)
    assert (parts[LIBRARIES].started_monotonic_s, parts[LIBRARIES].duration_s) == (102.0, 3.0)
    assert (parts[CONTEXT].duration_s if CONTEXT in parts else None) == context_s


@pytest.mark.parametrize("torn", [None, "", '{"began_monotonic_s": 1'])
def test_a_start_whose_parts_are_not_known_is_reported_as_a_whole(
    tmp_path: Path, torn: str | None
) -> None:
    run = RunDir(tmp_path)
    if torn is not None:
        write_text(run.worker_start, torn)
    task = WorkerTask(1, 0.0, 0.0, "", "", {}, given_monotonic_s=100.0)
    report_start(run, task, Reporter(run, attempt=1))
    assert [one.part for one in records.read_log(Timing, run.timings).records] == [""]


def timing(stage: str, part: str, since_s: float, until_s: float) -> Timing:
    return Timing(1, stage, part, 0.0, until_s - since_s, started_monotonic_s=since_s)


def test_the_benchmark_tells_where_the_time_to_the_first_step_went() -> None:
    timings = [
        timing("job", "begun", 10.2, 10.2),
        timing("start", "", 10.9, 17.0),
        timing("start", FROM_LAUNCH, 10.5, 17.0),
        timing("start", LAUNCHER, 10.5, 12.5),
        timing("start", CONTEXT, 12.5, 13.0),
        timing("start", LIBRARIES, 12.5, 16.5),
        timing("load", "read from its 4-bit copy", 17.5, 18.0),
        timing("load", "", 17.0, 19.0),
        timing("plan", "", 19.0, 20.0),
        timing("train", "warm-up", 20.5, 21.5),
        timing("train", "epoch 1", 21.5, 22.0),
    ]
    spent = list(until_first_step(timings, 10.0))
    *parts, total = spent
    assert total == Spent("from the command to the first step", 11.5, True)
    known = {one.name: one.seconds for one in parts}
    assert known[LIBRARIES] == 4.0
    assert known["load"] == 2.0
    assert known["between these"] == pytest.approx(0.5)
    alone = [one.seconds for one in parts if not one.is_meanwhile]
    assert sum(alone) == pytest.approx(total.seconds)


def test_the_benchmark_records_a_job_with_the_state_of_its_caches(tmp_path: Path) -> None:
    results = synthetic.finish(synthetic.build_run(tmp_path / "run"))
    spent = [Spent("plan", 2.0), Spent("load: a part", 1.0, True), Spent(WHOLE, 5.0004, True)]
    job = figures_of(results, spent, 12.3456, "empty caches")
    assert (job["caches"], job["whole_s"], job["to_first_step_s"]) == ("empty caches", 12.346, 5.0)
    assert job["spent_s"] == {"plan": 2.0}
    assert job["training_examples_per_s"] == results.training_examples_per_s
