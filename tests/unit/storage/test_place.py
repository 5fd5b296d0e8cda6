"""All kinds of remote folder behave alike, including those on servers of S3's and Google's kind."""

from __future__ import annotations

import filecmp
import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from nlijob.errors import ConfigurationError
from nlijob.storage import place as place_module
from nlijob.storage.place import Place, shown_url
from tests import gs_server, s3_server
from tests.faulty_place import URL, FaultyFileSystem
from tests.gs_server import GsServer
from tests.s3_server import S3Server

MODULES = {"s3": s3_server, "gs": gs_server}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, S3Server | GsServer]]:
    with S3Server() as s3, GsServer() as gs:
        for server in (s3, gs):
            server.make_bucket("bucket")
        yield {"s3": s3, "gs": gs}


@pytest.fixture
def server(
    url: str, servers: dict[str, S3Server | GsServer], monkeypatch: pytest.MonkeyPatch
) -> Iterator[S3Server | GsServer]:
    """The server behind the URL, to which a test may give faults."""
    server = servers[url.partition(":")[0]]
    before = server.before
    yield server
    server.before = before


@pytest.fixture
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    if request.param in MODULES:
        server = request.getfixturevalue("servers")[request.param]
        for name, value in MODULES[request.param].client_environment(server.url).items():
            monkeypatch.setenv(name, value)
        return f"{request.param}://bucket/{tmp_path.name}"
    FaultyFileSystem.reset()
    return {"file": f"file://{tmp_path}/not/yet/there", "memory": URL}[request.param]


every_kind = pytest.mark.parametrize("url", ["file", "memory", "s3", "gs"], indirect=True)
every_server = pytest.mark.parametrize("url", ["s3", "gs"], indirect=True)


@pytest.fixture
def place(url: str) -> Place:
    return Place("--upload", url, "job")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    return path


@every_kind
def test_a_new_folder_is_empty(place: Place) -> None:
    assert place.sizes() == {}


@every_kind
def test_an_uploaded_file_is_listed_and_can_be_downloaded(
    place: Place, file: Path, tmp_path: Path
) -> None:
    place.send("train/epoch-1/weights", file, lambda: None)
    place.write("markers/x.json", b"{}")
    assert place.sizes() == {"train/epoch-1/weights": 5, "markers/x.json": 2}
    assert place.read("markers/x.json") == b"{}"
    place.fetch("train/epoch-1/weights", tmp_path / "new" / "weights")
    assert (tmp_path / "new" / "weights").read_bytes() == b"12345"


@every_kind
def test_a_second_upload_replaces_the_first(place: Place, file: Path) -> None:
    place.send("a", file, lambda: None)
    file.write_bytes(b"other")
    place.send("a", file, lambda: None)
    assert place.read("a") == b"other"


@every_kind
def test_a_file_can_be_removed_twice(place: Place, file: Path) -> None:
    place.send("a", file, lambda: None)
    place.remove("a")
    place.remove("a")
    assert place.sizes() == {}


@every_kind
def test_runs_whose_ids_share_a_prefix_are_kept_apart(url: str, place: Place, file: Path) -> None:
    Place("--upload", url, "job2").send("a", file, lambda: None)
    assert place.sizes() == {}


@every_kind
def test_empty_files_are_files(place: Place, file: Path) -> None:
    file.write_bytes(b"")
    place.send("a", file, lambda: None)
    assert place.sizes() == {"a": 0}


@every_kind
def test_changes_by_another_machine_are_seen(url: str, place: Place, file: Path) -> None:
    place.sizes()
    Place("--upload", url, "job").send("a", file, lambda: None)
    assert place.sizes() == {"a": 5}


@pytest.mark.parametrize("url", ["memory", "s3", "gs"], indirect=True)
def test_progress_of_an_upload_is_reported(place: Place, file: Path) -> None:
    moved: list[None] = []
    place.send("a", file, lambda: moved.append(None))
    assert moved


@every_server
def test_a_large_file_is_copied_in_parts(place: Place, file: Path, tmp_path: Path) -> None:
    with file.open("wb") as handle:
        handle.write(b"beginning")
        handle.truncate(120 * 1024 * 1024)
    moved: list[None] = []
    place.send("a", file, lambda: moved.append(None))
    assert place.sizes() == {"a": 120 * 1024 * 1024}
    assert len(moved) >= 3
    moved.clear()
    place.fetch("a", tmp_path / "fetched", lambda: moved.append(None))
    assert filecmp.cmp(file, tmp_path / "fetched", shallow=False)
    assert len(moved) >= 3


@every_server
def test_a_missing_bucket_is_an_error(url: str) -> None:
    with pytest.raises(FileNotFoundError):
        Place("--upload", f"{url.partition(':')[0]}://nowhere/x", "job").sizes()


@every_server
def test_names_are_kept_as_they_are(place: Place, file: Path, tmp_path: Path) -> None:
    names = {"train/a b+c%20.json", "train/Ünï.json", "train/a#b?c&d=e.json", "train/a..b"}
    for name in names:
        place.send(name, file, lambda: None)
        place.fetch(name, tmp_path / "fetched")
        assert place.read(name) == b"12345"
    assert place.sizes().keys() == names


@every_server
def test_what_no_file_of_a_run_can_be_is_not_listed(place: Place) -> None:
    for name in ("train/", "train/x", "adapter", "adapter/weights", f"train/{'n' * 300}", "//x"):
        place._fs.pipe_file(place._root + name, b"")
    assert place.sizes().keys() == {"train/x", "adapter/weights"}


# ---------------------------------------------------------------- servers with faults


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that wait for little."""
    s3 = place_module.OPTIONS["s3"]
    limits = {**s3["config_kwargs"], "read_timeout": 0.2, "connect_timeout": 0.2}
    monkeypatch.setitem(place_module.OPTIONS, "s3", {**s3, "config_kwargs": limits})
    monkeypatch.setattr(place_module, "GS_SILENCE_S", 0.2)

    async def no_pause(_: float) -> None:
        pass

    pauses = SimpleNamespace(sleep=no_pause)
    monkeypatch.setattr("gcsfs.retry.asyncio", pauses)


@pytest.fixture
def hanging(server: S3Server | GsServer) -> Iterator[None]:
    """The server accepts requests and does not answer."""
    released = threading.Event()

    def hang(*_: str) -> int:
        released.wait()
        return 503

    server.before = hang
    yield
    released.set()


@every_server
@pytest.mark.parametrize("call", ["list", "send"])
def test_a_server_that_hangs_is_given_up(
    place: Place, call: str, file: Path, hanging: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place_module, "SILENCE_S", 0.2)
    calls: dict[str, Callable[[], object]] = {
        "list": place.sizes,
        "send": lambda: place.send("a", file, lambda: None),
    }
    with pytest.raises(TimeoutError, match=r"nothing moved within 0\.2 s"):
        calls[call]()


@pytest.mark.parametrize("url", ["gs"], indirect=True)
def test_the_limit_of_googles_client_is_named(url: str, hanging: None, impatient: None) -> None:
    with pytest.raises(TimeoutError, match="Timeout on reading"):
        Place("--upload", url, "job").sizes()


@every_server
def test_a_server_that_throttles_is_asked_again(
    url: str, server: S3Server | GsServer, file: Path, impatient: None
) -> None:
    place = Place("--upload", url, "job")
    refusals = iter([503, 503])
    server.before = lambda *_: next(refusals, None)
    place.send("a", file, lambda: None)
    assert place.sizes() == {"a": 5}
    assert next(refusals, None) is None


@pytest.mark.parametrize(
    ("url", "status"), [("s3", 403), ("gs", 403), ("gs", 401)], indirect=["url"]
)
def test_a_refusal_is_a_lack_of_permission(
    url: str, server: S3Server | GsServer, file: Path, status: int, tmp_path: Path
) -> None:
    place = Place("--upload", url, "job")
    place.send("a", file, lambda: None)
    server.before = lambda *_: status
    calls: list[Callable[[], object]] = [
        place.sizes,
        lambda: place.read("a"),
        lambda: place.send("a", file, lambda: None),
        lambda: place.fetch("a", tmp_path / "fetched"),
        lambda: place.remove("a"),
    ]
    for call in calls:
        with pytest.raises(PermissionError):
            call()


# ---------------------------------------------------------------- links in a folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder at a place of the local file system, and a file and folder outside of it."""
    folder = tmp_path / "place" / "job"
    (folder / "train").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("outside")
    return folder


@pytest.fixture
def local_place(folder: Path) -> Place:
    return Place("--upload", f"file://{folder.parent}", "job")


def test_links_at_a_place_are_not_followed(
    folder: Path, local_place: Place, tmp_path: Path
) -> None:
    (folder / "report.html").symlink_to(tmp_path / "outside" / "file")
    (folder / "subset").symlink_to(tmp_path / "outside")
    (folder / "train" / "round").symlink_to(folder)
    (folder / "config.json").symlink_to(tmp_path / "nowhere")
    (folder / "train" / "log.jsonl").write_text("here")
    assert local_place.sizes() == {"train/log.jsonl": 4}


def test_nothing_is_written_through_a_link_at_a_place(
    folder: Path, local_place: Place, tmp_path: Path, file: Path
) -> None:
    (folder / "report.html").symlink_to(tmp_path / "outside" / "file")
    (folder / "markers").symlink_to(tmp_path / "outside")
    local_place.send("report.html", file, lambda: None)
    local_place.write("markers/file", b"{}")
    assert (tmp_path / "outside" / "file").read_text() == "outside"
    assert local_place.sizes() == {"report.html": 5, "markers/file": 2}


def test_a_folder_that_cannot_be_listed_does_not_look_empty(
    folder: Path, local_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        local_place.sizes()


@pytest.mark.parametrize(
    "url",
    ["/runs", "bucket", "s3:bucket/x", "s3://", "file://", "nope://bucket/x", "://x", "s3://["],
)
def test_unusable_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Place("--upload", url, "job")
    assert caught.value.message.startswith("--upload ")
    assert "s3://bucket/path" in caught.value.hint


@pytest.mark.parametrize(("url", "package"), [("s3://b/x", "s3fs"), ("gs://b/x", "gcsfs")])
def test_a_missing_package_is_named(
    url: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (package, f"{package}.core"):
        monkeypatch.setitem(sys.modules, module, None)
    imported_before = importlib.import_module("fsspec.registry")._registry
    monkeypatch.delitem(imported_before, url.partition(":")[0], raising=False)
    with pytest.raises(ConfigurationError) as caught:
        Place("--resume-from", url, "job")
    assert caught.value.hint.startswith(f"pip install {package} fsspec==")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/a/", "s3://bucket/a"),
        ("ftp://me:secret@host:21/a", "ftp://host:21/a"),
        ("not a URL", "not a URL"),
        ("abfs://a/b?sig=secret#secret", "abfs://a/b"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown
