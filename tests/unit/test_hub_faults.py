"""A hub that misbehaves: the job ends in bounded time and says why, and no bad bytes are kept."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler as Handler
from pathlib import Path

import pytest
from huggingface_hub import constants

from nlijob import hub_cache
from nlijob.config import ModelConfig
from nlijob.errors import NotAvailableError
from nlijob.hub import Hub
from nlijob.hub_requests import Limits
from tests import faulty_hub, jobs
from tests.hub_server import Answer, HubServer, Misbehaviour, client_environment

MODEL, DATA = "acme/model", "acme/data"
COMMIT, OTHER_COMMIT = "a" * 40, "b" * 40
WEIGHTS = random.Random(1).randbytes(300_000)
LIST, INFO, CONFIG = f"/tree/{COMMIT}", "/revision/main", f"/resolve/{COMMIT}/config.json"
FILE = f"/resolve/{COMMIT}/model.safetensors"

LIMITS = Limits(first_wait_s=0.001, longest_asked_s=0.002, attempts=3)
QUICK = replace(LIMITS, connect_s=0.5, answer_s=0.5, window_s=0.3, window_bytes=10_000)
"""For servers that stall. Such a server never sends enough, however slow this machine is."""

STALLS = {
    "silence": faulty_hub.silence,
    "headers, then silence": faulty_hub.headers_then_silence,
    "half, then silence": faulty_hub.half_then_silence,
    "trickle": faulty_hub.trickle,
    "headers that trickle": faulty_hub.header_trickle,
}
REFUSALS = {
    "500": faulty_hub.refusal(500),
    "503 with Retry-After": faulty_hub.refusal(503, Retry_After="1"),
    "429 with seconds": faulty_hub.refusal(429, Retry_After="1"),
    "429 with a date": faulty_hub.refusal(
        429, Retry_After=format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)
    ),
    "429 with centuries": faulty_hub.refusal(429, Retry_After="9" * 5000),
    "429 with a negative wait": faulty_hub.refusal(429, Retry_After="-5"),
    "429 with nonsense": faulty_hub.refusal(429, Retry_After="soon"),
}
BREAKS = {
    "nothing sent": lambda *_: None,
    "cut short": faulty_hub.cut_at(0.5),
    "reset at once": faulty_hub.reset_at(0.0),
    "reset in the middle": faulty_hub.reset_at(0.5),
    "longer than promised": faulty_hub.other_length(-10),
    "shorter than promised": faulty_hub.other_length(10),
    "HTML": faulty_hub.html,
    "wrongly packed": faulty_hub.wrong_gzip,
    "nothing but headers": faulty_hub.other_content(lambda _: b""),
}
BAD_BYTES = {
    "a flipped byte": faulty_hub.flipped,
    "another length": faulty_hub.other_content(lambda content: content[:-1]),
    "another length, not named": faulty_hub.without_length(lambda content: content[:-1]),
    "too many bytes, not named": faulty_hub.without_length(lambda content: content + b"x"),
    "zeros": faulty_hub.other_content(lambda content: bytes(len(content))),
}


def each(*kinds: Mapping[str, Misbehaviour]) -> pytest.MarkDecorator:
    cases = {name: case for kind in kinds for name, case in kind.items()}
    return pytest.mark.parametrize("misbehaviour", cases.values(), ids=cases.keys())


stalls = pytest.mark.parametrize(
    ("request_", "misbehaviour"),
    [
        *(pytest.param(FILE, case, id=f"file: {name}") for name, case in STALLS.items()),
        *(pytest.param(INFO, case, id=f"info: {name}") for name, case in STALLS.items()),
        pytest.param(LIST, faulty_hub.silence, id="list: silence"),  # asked as INFO is
    ],
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with a model, which this process's client uses, with an empty cache."""
    served = write_model(tmp_path / "served" / "model", WEIGHTS)
    write_model(tmp_path / "served" / "other", b"other weights")
    models = {MODEL: {COMMIT: served, OTHER_COMMIT: tmp_path / "served" / "other"}}
    with HubServer(models=models, main={MODEL: COMMIT}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub_cache, "OTHERS_POLL_S", 0.01)
        # Which files make a model is checked after they were fetched.
        monkeypatch.setattr("nlijob.hub.check_model_folder", lambda name, folder, trusted: None)
        yield server


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The model's folder in the cache."""
    return tmp_path / "cache" / "models--acme--model"


def write_model(folder: Path, weights: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def fetched(
    limits: Limits = LIMITS,
    revision: str | None = None,
    tell: Callable[[str], None] = print,
    offline: bool = False,
) -> Path:
    config = ModelConfig(name=MODEL, revision=revision)
    return Hub(offline, tell, limits).model_folder(config)


def weights_in(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def blob_of(repository: Path) -> Path:
    return repository / "blobs" / hashlib.sha256(WEIGHTS).hexdigest()


def assert_nothing_bad(repository: Path) -> None:
    """Every blob is what its name says, and every name in the snapshots leads to a blob."""
    blobs = [b for b in (repository / "blobs").glob("*") if b.suffix != ".part"]
    for blob in blobs:
        content = blob.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        assert blob.name in (git, hashlib.sha256(content).hexdigest())
    assert all(path.exists() for path in (repository / "snapshots").rglob("*"))


# ---------------------------------------------------------------- what passes


@each(REFUSALS, BREAKS, BAD_BYTES)
def test_a_fault_of_a_download_that_passes_is_survived(
    hub: HubServer, repository: Path, misbehaviour: Misbehaviour
) -> None:
    hub.misbehave_next(1, misbehaviour, FILE)
    assert weights_in(fetched()) == WEIGHTS
    assert_nothing_bad(repository)


@each(REFUSALS, BREAKS)
@pytest.mark.parametrize("request_", [INFO, LIST])
def test_a_fault_of_an_answer_that_passes_is_survived(
    hub: HubServer, request_: str, misbehaviour: Misbehaviour
) -> None:
    hub.misbehave_next(1, misbehaviour, request_)
    assert weights_in(fetched()) == WEIGHTS


@stalls
def test_a_stall_that_passes_is_survived(
    hub: HubServer, repository: Path, request_: str, misbehaviour: Misbehaviour
) -> None:
    hub.misbehave_next(1, misbehaviour, request_)
    assert weights_in(fetched(replace(QUICK, attempts=8))) == WEIGHTS
    assert_nothing_bad(repository)


# ---------------------------------------------------------------- what stays


def error_of(limits: Limits = LIMITS, revision: str | None = None) -> str:
    with pytest.raises(NotAvailableError) as caught:
        fetched(limits, revision)
    assert caught.value.exit_code == 4
    return caught.value.message


@stalls
def test_a_hub_that_stalls_is_given_up(
    hub: HubServer, repository: Path, request_: str, misbehaviour: Misbehaviour
) -> None:
    hub.misbehave_next(99, misbehaviour, request_)
    message = error_of(replace(QUICK, attempts=1))
    assert "no answer within 0.5 s" in message or "bytes within 0.3 s" in message
    assert hub.url.removeprefix("http://") in message
    assert_nothing_bad(repository)


@each(BREAKS, BAD_BYTES)
def test_a_download_that_keeps_failing_ends_with_4_and_names_the_file(
    hub: HubServer, repository: Path, misbehaviour: Misbehaviour
) -> None:
    hub.misbehave_next(99, misbehaviour, FILE)
    assert "model.safetensors" in error_of()
    assert_nothing_bad(repository)


def test_bytes_that_stay_wrong_are_named_with_what_was_expected(hub: HubServer) -> None:
    hub.misbehave_next(99, faulty_hub.flipped, FILE)
    message = error_of()
    found = hashlib.sha256(faulty_hub.flip_last(WEIGHTS)).hexdigest()
    assert f"expected 300,000 bytes with hash {hashlib.sha256(WEIGHTS).hexdigest()}" in message
    assert f"found 300,000 bytes with hash {found}" in message


def test_a_small_file_is_verified_by_gits_hash(hub: HubServer) -> None:
    hub.misbehave_next(99, faulty_hub.other_content(lambda _: b"[]"), CONFIG)
    assert "config.json is damaged or missing: expected 2 bytes with hash" in error_of()


@pytest.mark.parametrize(
    ("misbehaviour", "words"),
    [
        (faulty_hub.refusal(401), "answers 401 (Unauthorized; it does not exist, or the token"),
        (faulty_hub.refusal(403, X_Error_Message="Ask for access"), "answers 403 (Ask for access)"),
        (faulty_hub.refusal(404), "answers 404 (Not Found)"),
        (faulty_hub.refusal(410), "answers 410 (Gone)"),
        (faulty_hub.redirect_loop, "too many redirects"),
    ],
)
@pytest.mark.parametrize("request_", [INFO, LIST, FILE])
def test_a_refusal_is_named_and_asked_once(
    hub: HubServer, request_: str, misbehaviour: Misbehaviour, words: str
) -> None:
    hub.misbehave_next(99, misbehaviour, request_)
    told: list[str] = []
    with pytest.raises(NotAvailableError) as caught:
        fetched(tell=told.append)
    assert words in caught.value.message
    assert told == []


@pytest.mark.parametrize(
    ("misbehaviour", "words"),
    [
        (faulty_hub.refusal(429), "answers 429 (Too Many Requests)"),
        (faulty_hub.refusal(500), "answers 500 (Internal Server Error)"),
        (faulty_hub.html, "is not JSON (text/html)"),
        (faulty_hub.wrong_gzip, "cannot be unpacked"),
        (faulty_hub.other_content(lambda _: b"[" * 100_000), "is not JSON"),
        (faulty_hub.other_content(lambda _: b'{"sha": 5}'), "names no commit"),
        (faulty_hub.cut_at(0.5), "cut short"),
    ],
)
def test_the_last_word_names_the_cause(
    hub: HubServer, misbehaviour: Misbehaviour, words: str
) -> None:
    hub.misbehave_next(99, misbehaviour, INFO)
    assert words in error_of()


@pytest.mark.parametrize(
    "entries",
    [
        [{"type": "file", "path": "../outside", "oid": "c" * 40, "size": 1}],
        [{"type": "file", "path": "/etc/outside", "oid": "c" * 40, "size": 1}],
        [{"type": "file", "path": "a", "size": 1}],
        [{"type": "file", "path": "a", "oid": "c" * 40, "size": "1"}],
        ["a"],
        [],
        {"error": "try later"},
    ],
)
def test_a_list_of_files_that_cannot_be_used_ends_with_4(
    hub: HubServer, tmp_path: Path, entries: object
) -> None:
    listed = json.dumps(entries).encode()
    hub.misbehave_next(99, faulty_hub.other_content(lambda _: listed), LIST)
    message = error_of()
    assert "list of files" in message or "lists no files" in message
    assert not list(tmp_path.rglob("outside"))


def test_a_refused_connection_is_named(hub: HubServer) -> None:
    hub.close()
    assert "refuses the connection" in error_of()


def test_an_unknown_host_is_named(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    assert "the name hub.invalid cannot be resolved (DNS)" in error_of()


def test_a_host_without_tls_is_named(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", hub.url.replace("http:", "https:"))
    assert "no secure connection to 127.0.0.1" in error_of()


# ---------------------------------------------------------------- downloads that go on


def test_an_attempt_goes_on_where_the_last_one_ended(hub: HubServer) -> None:
    sent: list[int] = []

    def cut(handler: Handler, answer: Answer, closed: threading.Event) -> None:
        sent.append(answer.start)
        faulty_hub.cut_at(0.5)(handler, answer, closed)

    hub.misbehave_next(2, cut, FILE)
    assert weights_in(fetched()) == WEIGHTS
    assert sent == [0, 150_000]


def test_a_download_that_was_killed_is_gone_on_with(hub: HubServer, repository: Path) -> None:
    hub.misbehave_next(99, faulty_hub.cut_at(0.5), FILE)
    error_of()
    part = blob_of(repository).with_suffix(".part")
    assert 0 < part.stat().st_size < len(WEIGHTS)
    hub._failures.clear()
    hub.misbehave_next(1, refuse_whole_files, FILE)
    assert weights_in(fetched()) == WEIGHTS


def refuse_whole_files(handler: Handler, answer: Answer, _: threading.Event) -> None:
    assert answer.start > 0, "the whole file was asked for again"
    faulty_hub.headers(handler, answer)
    handler.wfile.write(answer.content())


def test_a_beginning_of_other_bytes_is_not_kept(hub: HubServer, repository: Path) -> None:
    part = blob_of(repository).with_suffix(".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(1000))
    assert weights_in(fetched()) == WEIGHTS
    assert_nothing_bad(repository)


def test_a_server_that_ignores_ranges_is_given_up(hub: HubServer, repository: Path) -> None:
    hub.misbehave_next(99, faulty_hub.whole_but_cut_at(0.9), FILE)
    assert "model.safetensors" in error_of()
    assert_nothing_bad(repository)


def test_another_host_that_sends_the_file_does_not_get_the_token(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    def send(handler: Handler, answer: Answer, _: threading.Event) -> None:
        seen.append(handler.headers.get("Authorization"))
        faulty_hub.other_content(lambda content: content)(handler, answer, _)

    def redirect(handler: Handler, answer: Answer, _: threading.Event) -> None:
        seen.append(handler.headers.get("Authorization"))
        faulty_hub.headers(handler, Answer(302), Location=elsewhere.url + handler.path)

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    served = {MODEL: {COMMIT: tmp_path / "served" / "model"}}
    with HubServer(models=served) as elsewhere:
        hub.misbehave_next(1, redirect, FILE)
        elsewhere.misbehave_next(1, send, FILE)
        assert weights_in(fetched()) == WEIGHTS
    assert seen == ["Bearer hf_secret", None]


# ---------------------------------------------------------------- the cache


def test_bad_bytes_in_the_cache_are_fetched_again(hub: HubServer, repository: Path) -> None:
    fetched(revision=COMMIT)
    blob_of(repository).write_bytes(faulty_hub.flip_last(WEIGHTS))
    told: list[str] = []
    assert weights_in(fetched(revision=COMMIT, tell=told.append)) == WEIGHTS
    assert "in the cache model.safetensors is damaged" in told[0]


@pytest.mark.parametrize("size", [0, 10, 300_001])
def test_a_file_of_another_size_is_fetched_again(
    hub: HubServer, repository: Path, size: int
) -> None:
    fetched(revision=COMMIT)
    os.truncate(blob_of(repository), size)
    assert weights_in(fetched(revision=COMMIT)) == WEIGHTS


def test_a_whole_commit_in_the_cache_needs_no_request(hub: HubServer) -> None:
    fetched(revision=COMMIT)
    hub.forget_requests()
    fetched(revision=COMMIT)
    assert hub.requests == []


def test_a_file_is_hashed_once(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched()
    monkeypatch.setattr(hub_cache, "_hash_of", lambda *_: pytest.fail("hashed again"))
    assert weights_in(fetched()) == WEIGHTS
    assert weights_in(fetched(offline=True)) == WEIGHTS


def test_files_of_another_tool_are_verified_though_their_list_is_missing(
    hub: HubServer, repository: Path
) -> None:
    fetched(revision=COMMIT)
    for file in (repository / "trees" / f"{COMMIT}.json", repository / "verified.json"):
        file.unlink()
    assert weights_in(fetched(revision=COMMIT, offline=True)) == WEIGHTS
    blob_of(repository).write_bytes(faulty_hub.flip_last(WEIGHTS))
    with pytest.raises(NotAvailableError, match="damaged"):
        fetched(revision=COMMIT, offline=True)


def test_offline_a_missing_file_is_named(hub: HubServer, repository: Path) -> None:
    folder = fetched()
    (folder / "config.json").unlink()
    with pytest.raises(NotAvailableError, match=r"config\.json .* found nothing"):
        fetched(offline=True)


def test_a_hub_that_is_gone_is_not_needed_for_a_branch_in_the_cache(hub: HubServer) -> None:
    fetched()
    hub.close()
    told: list[str] = []
    assert weights_in(fetched(tell=told.append)) == WEIGHTS
    assert f"using commit {COMMIT} from the cache" in told[-1]


def test_a_branch_that_moves_is_read_at_one_commit(hub: HubServer) -> None:
    reader = Hub(False, print, LIMITS)
    first = reader.model_folder(ModelConfig(name=MODEL))
    hub.main[MODEL] = OTHER_COMMIT
    assert reader.model_folder(ModelConfig(name=MODEL)) == first
    assert weights_in(fetched()) == b"other weights"


def test_a_branch_that_moves_between_two_requests_gives_one_commits_files(hub: HubServer) -> None:
    def move(handler: Handler, answer: Answer, closed: threading.Event) -> None:
        hub.main[MODEL] = OTHER_COMMIT
        faulty_hub.other_content(lambda content: content)(handler, answer, closed)

    hub.misbehave_next(1, move, INFO)
    folder = fetched()
    assert (folder.name, weights_in(folder)) == (COMMIT, WEIGHTS)


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_a_cache_on_a_read_only_disk_can_be_used(
    hub: HubServer, repository: Path, revision: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched()
    (repository / "verified.json").unlink()

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    for name in ("mkdir", "write_text", "replace", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    assert weights_in(fetched(revision=revision, offline=True)) == WEIGHTS
    assert weights_in(fetched(revision=revision)) == WEIGHTS


def test_a_full_disk_is_reported_as_such(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        fetched()
    assert caught.value.errno == errno.ENOSPC


def test_several_jobs_share_an_empty_cache(hub: HubServer, repository: Path) -> None:
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(weights_in(fetched()))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [WEIGHTS] * 4
    assert_nothing_bad(repository)
    downloads = [path for _, path in hub.requests if FILE in path]
    assert len(downloads) == 1


def test_a_download_of_another_process_that_gets_no_further_is_not_waited_for(
    hub: HubServer, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_cache, "OTHERS_STALL_S", 0.1)
    part = blob_of(repository).with_suffix(".part")
    part.parent.mkdir(parents=True)
    with part.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert weights_in(fetched()) == WEIGHTS


def test_a_file_system_without_locks_and_links_will_do(
    hub: HubServer, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    monkeypatch.setattr(Path, "symlink_to", unsupported)
    assert weights_in(fetched()) == WEIGHTS
    assert weights_in(fetched(offline=True)) == WEIGHTS
    assert list(repository.rglob("*.part")) == list(repository.rglob("*.tmp")) == []


# ---------------------------------------------------------------- limits and stops


def test_the_limit_of_an_answer_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "45")
    assert Limits.of_environment().answer_s == 45.0
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "soon")
    assert Limits.of_environment().answer_s == Limits().answer_s


def test_all_limits_together_end_within_the_patience_for_one_request() -> None:
    """So that the last word names the cause, and not only that nothing came for so long."""
    limits = Limits()
    pauses = 1.25 * limits.longest_asked_s * (limits.attempts - 1)
    waits = (limits.connect_s + limits.answer_s) * limits.attempts
    assert pauses + waits < limits.patience_s


@pytest.mark.parametrize(
    ("command", "number"), [("prefetch", signal.SIGTERM), ("run", signal.SIGINT)]
)
def test_a_stop_ends_a_command_whose_hub_is_silent(
    hub: HubServer, tmp_path: Path, command: str, number: signal.Signals
) -> None:
    hub.misbehave_next(99, faulty_hub.silence)
    env = client_environment(hub.url, tmp_path / "home")
    env |= {"HF_HUB_DOWNLOAD_TIMEOUT": "3600", "NLIJOB_RUNS_DIR": str(tmp_path)}
    options = ("--recipe", "phi2", "--model", MODEL, "--device", "cpu")
    process = subprocess.Popen(
        jobs.command(command, *options), env=env, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        while not hub.exchanges:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(number)
        _, shown = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75, shown
