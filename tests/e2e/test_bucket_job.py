"""The job with a bucket behind it: servers of S3's and Google's kind on loopback."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nlijob.gpu.stages import WORK
from nlijob.rundir import RunDir
from nlijob.stages import STAGE_NAMES
from nlijob.storage import contents, mirror
from nlijob.storage.place import Place
from tests import gs_server, jobs, s3_server
from tests.gs_server import GsServer
from tests.in_process import Shown
from tests.s3_server import S3Server

Command = Callable[..., Shown]
ONE_EPOCH = (
    *("--recipe", "demo", "--train-size", "32", "--validation-size", "16", "--test-size", "16"),
    *("--epochs", "1", "--set", "eval.generate_tokens=0", "--set", "eval.word_importance=false"),
)


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


@pytest.fixture
def run_in(nlijob_here: Command) -> Command:
    """Runs the job in this process, in a folder of runs and with these options."""
    return lambda folder, *options: nlijob_here(
        "run", "--runs-dir", folder, "--run-id", "job", *options
    )


def local_sizes(job: RunDir) -> dict[str, int]:
    return but_console({n: stamp.size for n, stamp in contents.stamps(job.root).items()}, job)


def but_console(sizes: dict[str, int], job: RunDir) -> dict[str, int]:
    """The sizes of all files but the console's log, whose last line tells of the upload."""
    return {n: size for n, size in sizes.items() if n != job.name(job.console_log)}


@pytest.mark.parametrize("url", ["s3", "gs"], indirect=True)
def test_a_finished_run_whose_machine_is_gone_is_rendered_again_on_another(
    tmp_path: Path, url: str, place: Place, copied: RunDir, run_in: Command
) -> None:
    both = ("--upload", url, "--resume-from", url)
    first = run_in(copied.root.parent, *jobs.SMALL_DEMO, *both)
    assert f"Nothing complete at {place.url}" in first.err
    assert first.err.splitlines()[-1] == f"Uploaded: {place.url}"
    assert but_console(place.sizes(), copied) == local_sizes(copied)
    shutil.rmtree(copied.root)

    # on the other machine a changed option renders the report again, and does nothing else
    other = RunDir(tmp_path / "two" / "job")
    second = run_in(tmp_path / "two", *jobs.SMALL_DEMO, *both, "--set", "report.title='Nightly'")
    assert f"Resuming from {place.url}: downloaded {len(STAGE_NAMES) + 2} complete" in second.err
    assert second.err.count("complete, skipped") == len(STAGE_NAMES) - 1
    assert but_console(place.sizes(), other) == local_sizes(other)
    assert b"Nightly" in place.read("report.html")


@pytest.mark.slow
def test_a_bucket_that_goes_away_costs_the_job_nothing_and_gets_the_rest_later(
    tmp_path: Path,
    url: str,
    place: Place,
    server: S3Server,
    run_in: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def train_without_bucket(session: Any) -> Any:
        deadline = time.monotonic() + jobs.LIMIT_S
        while "markers/baseline.json" not in place.sizes():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        server.away = True
        return train(session)

    train = WORK["train"]
    monkeypatch.setitem(WORK, "train", train_without_bucket)
    monkeypatch.setattr(mirror, "FIRST_WAIT_S", 0.01)
    own = RunDir(tmp_path / "job")
    try:
        done = run_in(tmp_path, *ONE_EPOCH, "--upload", url)
    finally:
        server.away = False
    assert done.code == 0, done.err
    assert f"Not uploaded to {place.url}: " in done.err.splitlines()[-1]
    assert "the same command uploads what is missing" in done.err.splitlines()[-1]
    assert "markers/report.json" not in place.sizes()
    assert own.report.exists()

    done = run_in(tmp_path, *ONE_EPOCH, "--upload", url)
    assert done.err.count("complete, skipped") == len(STAGE_NAMES)
    assert but_console(place.sizes(), own) == local_sizes(own)


@pytest.mark.slow
def test_a_stop_waits_for_neither_a_bucket_nor_a_receiver_that_hangs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process: subprocess.Popen[str] = jobs.start(
            *(tmp_path, *ONE_EPOCH, "--upload", "s3://bucket/x", "--notify-url", host),
            env=jobs.environment(**s3_server.client_environment(host)),
        )
        jobs.wait_until(RunDir(tmp_path / "job").marker("subset").exists, process)
        process.send_signal(signal.SIGTERM)
        _, shown = process.communicate(timeout=jobs.LIMIT_S)
    assert process.returncode == 75, shown
    assert f"Note: the notice to {host} failed: no answer within 2 s" in shown
