"""All kinds of remote folder behave alike, including one on a real S3 server."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nlijob.errors import ConfigurationError
from nlijob.storage.place import Place, shown_url
from tests.faulty_place import URL, FaultyFileSystem
from tests.s3_server import S3Server, client_environment


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        server.make_bucket("bucket")
        yield server


@pytest.fixture
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    if request.param == "s3":
        server = request.getfixturevalue("server")
        for name, value in client_environment(server.url).items():
            monkeypatch.setenv(name, value)
        return f"s3://bucket/{tmp_path.name}"
    FaultyFileSystem.reset()
    return {"file": f"file://{tmp_path}/not/yet/there", "memory": URL}[request.param]


every_kind = pytest.mark.parametrize("url", ["file", "memory", "s3"], indirect=True)


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


@pytest.mark.parametrize("url", ["memory", "s3"], indirect=True)
def test_progress_of_an_upload_is_reported(place: Place, file: Path) -> None:
    moved: list[None] = []
    place.send("a", file, lambda: moved.append(None))
    assert moved


@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_a_large_file_is_uploaded_in_parts(place: Place, file: Path) -> None:
    with file.open("wb") as handle:
        handle.truncate(120 * 1024 * 1024)
    moved: list[None] = []
    place.send("a", file, lambda: moved.append(None))
    assert place.sizes() == {"a": 120 * 1024 * 1024}
    assert len(moved) >= 3


@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_a_missing_bucket_is_an_error(url: str) -> None:
    with pytest.raises(FileNotFoundError, match="bucket does not exist"):
        Place("--upload", "s3://nowhere/x", "job").sizes()


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
    monkeypatch.setitem(sys.modules, package, None)
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
