"""The whole job with a bucket behind it: servers of S3's and Google's kind on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nlijob import records
from nlijob.records.job import EpochResult, Machine
from nlijob.rundir import RunDir
from nlijob.storage import contents
from nlijob.storage.mirror import Mirror
from nlijob.storage.place import Place
from tests import gs_server, jobs, s3_server
from tests.gs_server import GsServer
from tests.s3_server import S3Server

LIMIT_S = 240.0


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(scope="module")
def google() -> Iterator[GsServer]:
    with GsServer() as server:
        yield server


@pytest.fixture
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A bucket of the test's own, which this process reads too; on S3 unless the test says."""
    scheme = getattr(request, "param", "s3")
    server: S3Server | GsServer = request.getfixturevalue({"s3": "server", "gs": "google"}[scheme])
    module = {"s3": s3_server, "gs": gs_server}[scheme]
    for name, value in module.client_environment(server.url).items():
        monkeypatch.setenv(name, value)
    bucket = tmp_path.name.replace("_", "-").lower()
    server.make_bucket(bucket)
    return f"{scheme}://{bucket}/prefix"


@pytest.fixture
def place(url: str) -> Place:
    return Place("--upload", url, "job")


def start(runs_dir: Path, *options: str) -> subprocess.Popen[str]:
    where = ("--runs-dir", str(runs_dir), "--run-id", "job")
    command = jobs.command("run", *where, *jobs.SMALL_DEMO, *options)
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=jobs.environment())


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert process.poll() is None, "the job ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def figures(job: RunDir) -> list[object]:
    epochs = [records.read(EpochResult, job.epoch_result(epoch)) for epoch in (1, 2)]
    outcome = jobs.results(job)
    return [
        *((e.train_loss, e.validation.correct, e.validation.loss) for e in epochs),
        (outcome.base.correct, outcome.base.loss, outcome.tuned.correct, outcome.tuned.loss),
        outcome.selection.epoch,
    ]


def local_sizes(job: RunDir) -> dict[str, int]:
    return but_console({n: stamp.size for n, stamp in contents.stamps(job.root).items()}, job)


def but_console(sizes: dict[str, int], job: RunDir) -> dict[str, int]:
    """The sizes of all files but the console's log, whose last line tells of the upload."""
    return {n: size for n, size in sizes.items() if n != job.name(job.console_log)}


@pytest.mark.parametrize("url", ["s3", "gs"], indirect=True)
def test_a_run_whose_machine_is_gone_goes_on_on_another(
    tmp_path: Path, url: str, place: Place, job: RunDir
) -> None:
    both = ("--upload", url, "--resume-from", url)
    process = start(tmp_path / "one", *both)
    first = RunDir(tmp_path / "one" / "job")
    wait_until(first.marker("train-epoch-1").exists, process)
    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 75, shown
    assert "Nothing complete at" in shown
    assert f"Uploaded: {place.url}" in shown
    assert "markers/train-epoch-1.json" in place.sizes()
    assert "markers/train.json" not in place.sizes()
    shutil.rmtree(tmp_path / "one")

    second, done = jobs.run_job(tmp_path / "two", *jobs.SMALL_DEMO, *both)
    assert f"Resuming from {place.url}: downloaded 3 complete" in done.stderr
    assert "baseline  complete, skipped" in done.stderr
    assert "epochs 1 to 1 complete" in done.stderr
    assert figures(second) == figures(job)
    assert [m.attempt for m in records.read_lines(Machine, second.machines)] == [1, 2]
    assert done.stderr.splitlines()[-1] == f"Uploaded: {place.url}"
    assert but_console(place.sizes(), second) == local_sizes(second)
    assert {"report.html", "results.json", "markers/report.json"} <= place.sizes().keys()

    # on a third machine a changed option renders the report again, and does nothing else
    changed = ("--set", "report.title='Nightly'")
    third, done = jobs.run_job(tmp_path / "three", *jobs.SMALL_DEMO, *both, *changed)
    assert done.stderr.count("complete, skipped") == 5
    assert but_console(place.sizes(), third) == local_sizes(third)
    assert b"Nightly" in place.read("report.html")


def test_a_machine_that_is_gone_costs_another_one_no_whole_epoch(
    tmp_path: Path, url: str, place: Place, job: RunDir
) -> None:
    both = ("--upload", url, "--resume-from", url, "--set", "train.checkpoint_every_s=0.01")
    process = start(tmp_path / "one", *both)
    first = RunDir(tmp_path / "one" / "job")
    wait_until(lambda: bool(first.marked_steps()), process)
    for number in jobs.processes_of(first):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.communicate(timeout=LIMIT_S)
    with Mirror(first, place, print):  # checkpoints so close together outrun the job's own upload
        pass
    shutil.rmtree(tmp_path / "one")

    second, done = jobs.run_job(tmp_path / "two", *jobs.SMALL_DEMO, *both)
    assert ", and a checkpoint within an epoch" in done.stderr
    assert "resuming at epoch" in done.stderr
    assert figures(second) == figures(job)
    assert [name for name in place.sizes() if "/state-" in name or "-step-" in name] == []


def test_a_bucket_that_goes_away_costs_the_job_nothing_and_gets_the_rest_later(
    tmp_path: Path, url: str, place: Place, server: S3Server, job: RunDir
) -> None:
    process = start(tmp_path, "--upload", url)
    wait_until(lambda: "markers/baseline.json" in place.sizes(), process)
    server.away = True
    try:
        _, shown = process.communicate(timeout=LIMIT_S)
    finally:
        server.away = False
    assert process.returncode == 0, shown
    assert f"Not uploaded to {place.url}: " in shown.splitlines()[-1]
    assert "the same command uploads what is missing" in shown.splitlines()[-1]
    assert "markers/report.json" not in place.sizes()
    own = RunDir(tmp_path / "job")
    assert figures(own) == figures(job)

    _, done = jobs.run_job(tmp_path, *jobs.SMALL_DEMO, "--upload", url)
    assert done.stderr.count("complete, skipped") == 6
    assert but_console(place.sizes(), own) == local_sizes(own)


def test_a_stop_waits_for_neither_a_bucket_nor_a_receiver_that_hangs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        arguments = ("run", "--runs-dir", tmp_path, "--run-id", "job", *jobs.SMALL_DEMO)
        process = subprocess.Popen(
            jobs.command(*arguments, "--upload", "s3://bucket/x", "--notify-url", host),
            stderr=subprocess.PIPE,
            text=True,
            env=jobs.environment(**s3_server.client_environment(host)),
        )
        wait_until(RunDir(tmp_path / "job").marker("baseline").exists, process)
        process.send_signal(signal.SIGTERM)
        _, shown = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 75, shown
    assert f"Note: the notice to {host} failed: no answer within 2 s" in shown
