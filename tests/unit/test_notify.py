"""One document is posted at the end; no error of the receiver reaches the job."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nlijob import notify
from nlijob.errors import (
    ConfigurationError,
    DivergedError,
    ExitCode,
    GateError,
    JobError,
    StoppedError,
)
from nlijob.notify import Notice
from nlijob.rundir import RunDir
from nlijob.stopping import Stopped

SECRET = "T0KEN"


class Receiver:
    """A web server that keeps posted documents and answers with `answers`, then with 200."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.answers: list[int] = []
        self.silent = threading.Event()
        self.released = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                if receiver.silent.is_set():
                    receiver.released.wait()  # until the test is over
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.paths.append(self.path)
                receiver.posted.append(json.loads(body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def do_GET(self) -> None:
                receiver.posted.append({"followed a redirect": True})
                self.send_error(404)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.host}/hooks/{SECRET}?token={SECRET}"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setattr(notify, "FIRST_WAIT_S", 0.001)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    receiver = Receiver()
    threading.Thread(target=receiver.server.serve_forever, args=(0.01,), daemon=True).start()
    yield receiver
    receiver.released.set()
    receiver.server.shutdown()
    receiver.server.server_close()


def told_at(url: str | None, error: BaseException | None = None) -> str:
    """The lines told when a job ends with this error."""
    told: list[str] = []
    expected = pytest.raises(type(error)) if error else nullcontext()
    with expected, Notice(url, "demo", told.append):
        if error:
            raise error
    return "\n".join(told)


@pytest.mark.parametrize(
    ("error", "end", "exit_code", "message"),
    [
        (None, "done", 0, None),
        (GateError("accuracy 0.4 is below 0.5"), "gate failed", 3, "accuracy 0.4 is below 0.5"),
        (ConfigurationError("2 faults:\n  - a\n  - b"), "failed", 2, "2 faults:"),
        (DivergedError("loss is nan"), "failed", 6, "loss is nan"),
        (JobError("the GPU side ended\n  | its log"), "failed", 70, "the GPU side ended"),
        (RuntimeError("unforeseen"), "failed", 70, "this is a bug in nlijob"),
        (Stopped("SIGTERM"), "stopped", 75, "stopped (SIGTERM)"),
        (StoppedError("stopped (SIGTERM)"), "stopped", 75, "stopped (SIGTERM)"),
    ],
)
def test_every_end_is_posted_once_and_the_error_is_raised(
    receiver: Receiver, error: BaseException | None, end: str, exit_code: int, message: str | None
) -> None:
    assert told_at(receiver.url, error) == ""
    (posted,) = receiver.posted
    assert posted["recipe"] == "demo"
    assert (posted["end"], posted["exit_code"], posted["message"]) == (end, exit_code, message)
    assert receiver.paths == [f"/hooks/{SECRET}?token={SECRET}"]


def test_a_job_that_failed_early_has_no_run_outcome_report_or_upload(receiver: Receiver) -> None:
    told_at(receiver.url, ConfigurationError("x"))
    (posted,) = receiver.posted
    assert [posted[key] for key in ("run_id", "outcome", "report", "upload")] == [None] * 4


def test_a_finished_job_posts_its_outcome(receiver: Receiver, tmp_path: Path) -> None:
    results: Any = SimpleNamespace(
        base=SimpleNamespace(accuracy=0.25),
        tuned=SimpleNamespace(accuracy=0.75, rows=40),
        selection=SimpleNamespace(epoch=3),
        trials=SimpleNamespace(trials=("a", "b"), accuracy=SimpleNamespace(mean=0.7)),
    )
    upload: Any = SimpleNamespace(url="s3://b/x/job", missing=["a", "b"])
    with Notice(receiver.url, "demo", print) as notice:
        notice.run, notice.results, notice.mirror = RunDir(tmp_path / "job"), results, upload
    (posted,) = receiver.posted
    assert posted.pop("duration_s") >= 0
    assert posted == {
        "run_id": "job",
        "recipe": "demo",
        "end": "done",
        "exit_code": 0,
        "message": None,
        "outcome": {
            "accuracy_before": 0.25,
            "accuracy_after": 0.75,
            "test_rows": 40,
            "selected_epoch": 3,
            "trainings": 2,
            "mean_accuracy_after": 0.7,
        },
        "report": str(tmp_path / "job" / "report.html"),
        "upload": {"url": "s3://b/x/job", "files_missing": 2},
    }


def test_without_a_url_nobody_is_told() -> None:
    assert told_at(None, DivergedError("x")) == ""


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_temporary_error_is_retried(receiver: Receiver, status: int) -> None:
    receiver.answers = [status, status]
    assert told_at(receiver.url) == ""
    assert len(receiver.posted) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 301, 302, 307])
def test_a_permanent_error_is_reported_at_once(receiver: Receiver, status: int) -> None:
    receiver.answers = [status]
    told = told_at(receiver.url)
    assert told == f"Note: the notice to {receiver.host} failed: HTTP status {status}"
    assert len(receiver.posted) == 1


@pytest.mark.parametrize("error", [None, GateError("x"), Stopped("SIGTERM")])
def test_an_unreachable_receiver_changes_no_exit_code(
    receiver: Receiver, error: BaseException | None
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{free.getsockname()[1]}"
    told = told_at(f"{host}/hooks/{SECRET}", error)
    assert told.startswith(f"Note: the notice to {host} failed: ")
    assert SECRET not in told


def test_a_receiver_that_hangs_is_given_up(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nlijob.posting.TIMEOUT_S", 0.1)
    receiver.silent.set()
    told = told_at(receiver.url)
    assert "failed" in told
    assert SECRET not in told


@pytest.mark.parametrize("stop", [Stopped("SIGTERM"), StoppedError("stopped")])
def test_after_a_stop_a_receiver_that_hangs_is_waited_for_briefly(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    monkeypatch.setattr(notify, "STOP_LIMIT_S", 1.0)
    receiver.silent.set()
    assert "no answer within 1 s" in told_at(receiver.url, stop)


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://host/{SECRET}",
        f"host/{SECRET}",
        f"https:///{SECRET}",
        f"http://me:{SECRET}@host/",
        f"http://[{SECRET}",
    ],
)
def test_an_unusable_url_is_refused_and_not_printed(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Notice(url, "demo", print)
    assert caught.value.exit_code == ExitCode.CONFIGURATION
    assert SECRET not in caught.value.message + caught.value.hint


def test_an_invalid_url_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "FIRST_WAIT_S", 0.001)
    told = told_at(f"http://127.0.0.1:9/a b\n{SECRET}")
    assert "failed" in told
    assert SECRET not in told
