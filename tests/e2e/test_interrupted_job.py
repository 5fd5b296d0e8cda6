"""One run with a bucket behind it that is stopped, loses its machine, is killed, and goes on.

Each start of a job takes seconds of imports, so all these tests look at the same three attempts.
"""

from __future__ import annotations

import dataclasses
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from nlijob import records
from nlijob.analysis.times import attempt_times
from nlijob.records.job import EpochResult, HardwareSample, Machine, Timing, TrainStep
from nlijob.rundir import RunDir
from nlijob.storage import contents
from nlijob.storage.place import Place
from tests import jobs, s3_server
from tests.s3_server import S3Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("interrupted job"),  # so that the story happens once
]

PRICED = (
    *("--set", "report.price_per_hour=3.6", "--set", "report.sample_interval_s=0.2"),
    *("--set", "train.checkpoint_every_s=0.01"),
    *("--set", "eval.word_importance=false", "--set", "eval.blank_premise=false"),
    *("--set", "forgetting.texts="),
)


@dataclass(frozen=True)
class Story:
    """What was seen of the run on its way."""

    place: Place
    """The copy of the run in the bucket."""
    run: RunDir
    """The finished run, on its second machine."""
    stopped: tuple[int, str]
    """Exit code and messages of the first attempt, which got SIGINT after its first epoch."""
    left_by_stop: Sequence[int]
    """Processes of the run that were alive when the stopped attempt had ended."""
    saved_by_stop: frozenset[str]
    """Names of the files in the bucket after that."""
    kill_left_none: bool
    """Whether no process was left of the second attempt, whose parent was killed in epoch 2."""
    told: str
    """Messages of the last attempt."""
    saved: dict[str, int]
    """Name and size of each file in the bucket after that."""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    with S3Server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.client_environment(server.url).items():
            patch.setenv(name, value)
        server.make_bucket("runs")
        # a process that does this twice has the bucket of the first time
        yield told_in(folder, f"s3://runs/{folder.name}")


def told_in(folder: Path, url: str) -> Story:
    options = (*jobs.SMALL_DEMO, *PRICED, "--upload", url, "--resume-from", url)
    place = Place("--upload", url, "job")
    first, second = RunDir(folder / "one" / "job"), RunDir(folder / "two" / "job")

    process = jobs.start(folder / "one", *options)
    jobs.wait_until(first.marker("train-epoch-1").exists, process)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=jobs.LIMIT_S)
    stopped, left = (process.returncode, shown), jobs.processes_of(first)
    saved_by_stop = frozenset(place.sizes())
    shutil.rmtree(folder / "one")

    process = jobs.start(folder / "two", *options)
    jobs.wait_until(lambda: trained_in_epoch_2(second), process)
    process.kill()
    process.communicate()
    kill_left_none = jobs.no_process_left(second)

    _, done = jobs.run_job(folder / "two", *options)
    return Story(
        *(place, second, stopped, left, saved_by_stop, kill_left_none),
        *(done.stderr, place.sizes()),
    )


def trained_in_epoch_2(run: RunDir) -> bool:
    """Whether the second attempt has written a checkpoint within epoch 2."""
    timings = records.read_log(Timing, run.timings).records
    done = {(timing.attempt, timing.part) for timing in timings}
    return (2, "epoch 2 checkpoint") in done and any(epoch == 2 for epoch, _ in run.marked_steps())


def test_a_stopped_job_says_so_and_leaves_no_process(story: Story) -> None:
    code, shown = story.stopped
    assert code == 75, shown
    assert "Traceback" not in shown
    assert story.left_by_stop == []


def test_a_stopped_job_has_uploaded_what_is_complete(story: Story) -> None:
    _, shown = story.stopped
    assert f"Nothing complete at {story.place.url}" in shown
    assert f"Uploaded: {story.place.url}" in shown
    assert "markers/train-epoch-1.json" in story.saved_by_stop
    assert "markers/train.json" not in story.saved_by_stop


def test_a_job_whose_parent_is_killed_leaves_no_process(story: Story) -> None:
    assert story.kill_left_none


def test_a_run_goes_on_where_it_was_on_another_machine_and_after_a_kill(story: Story) -> None:
    assert "baseline  complete, skipped" in story.told
    assert "epochs 1 to 1 complete, resuming at epoch 2, step" in story.told
    machines = records.read_lines(Machine, story.run.machines)
    assert [machine.attempt for machine in machines] == [1, 2, 3]


def test_its_outcome_is_that_of_a_run_that_nobody_disturbed(story: Story, job: RunDir) -> None:
    for epoch in (1, 2):
        assert figures(story.run, epoch) == figures(job, epoch)
        for name in ("predictions.jsonl", "adapter_model.safetensors"):
            assert same_file(story.run, job, f"train/epoch-{epoch}/{name}")
    assert same_file(story.run, job, "evaluate/predictions.jsonl")
    assert same_file(story.run, job, "adapter/adapter_model.safetensors")
    assert steps(story.run) == steps(job)
    assert sorted(path.name for path in story.run.train_folder.iterdir()) == sorted(
        path.name for path in job.train_folder.iterdir()
    )


def test_the_bucket_holds_the_finished_run_and_nothing_else(story: Story) -> None:
    assert story.told.splitlines()[-1] == f"Uploaded: {story.place.url}"
    console = story.run.name(story.run.console_log)  # its last line tells of the upload
    local = {name: stamp.size for name, stamp in contents.stamps(story.run.root).items()}
    assert story.saved | {console: 0} == local | {console: 0}
    assert {"report.html", "results.json", "markers/report.json"} <= story.saved.keys()
    assert [name for name in story.saved if "/state-" in name or "-step-" in name] == []


def test_an_attempt_that_was_killed_counts_up_to_its_last_moment(story: Story) -> None:
    timings = list(records.read_lines(Timing, story.run.timings))
    samples = list(records.read_lines(HardwareSample, story.run.hardware))
    results = jobs.results(story.run)
    stopped, killed, last = attempt_times(timings, samples).values()
    last_moment_s = max(s.monotonic_s or 0.0 for s in samples if s.attempt == 2)
    began_s = min(t.started_monotonic_s or 0.0 for t in timings if t.attempt == 2)
    assert killed.seconds >= last_moment_s - began_s > 0
    assert (stopped.is_least, killed.is_least, last.is_least) == (False, True, False)
    assert results.total_s == pytest.approx(stopped.seconds + killed.seconds + last.seconds)
    assert (results.attempts, results.cut_short) == (3, (2,))


def test_time_and_cost_of_a_killed_attempt_are_called_lower_bounds(story: Story) -> None:
    page = story.run.report.read_text("utf-8")
    assert page.count("at least") >= 3
    assert "attempt 2 ended without a record, and counts up to the last one" in page
    summary = story.run.summary.read_text("utf-8")
    assert "time at least " in summary
    assert "cost at least " in summary


def same_file(one: RunDir, other: RunDir, name: str) -> bool:
    return (one.root / name).read_bytes() == (other.root / name).read_bytes()


def steps(job: RunDir) -> list[TrainStep]:
    """The log of the training without times."""
    logged = records.read_lines(TrainStep, job.train_log)
    return [dataclasses.replace(step, duration_s=0.0) for step in logged]


def figures(job: RunDir, epoch: int) -> tuple[float, int, float]:
    result = records.read(EpochResult, job.epoch_result(epoch))
    return result.train_loss, result.validation.correct, result.validation.loss
