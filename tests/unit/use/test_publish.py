"""Folders are published through the hub's own client, private unless asked otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from nlijob.errors import ConfigurationError, NotAvailableError
from nlijob.use.publish import Publisher
from tests.hub_server import HubServer
from tests.hub_uploads import Uploaded, Uploads

TOKEN = "hf_secret_of_the_test"
NAME = "acme/demo-nli"


@pytest.fixture
def uploads() -> Uploads:
    return Uploads(TOKEN)


@pytest.fixture
def hub(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(uploads=uploads) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the hub here has plain LFS
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "export"
    made.mkdir()
    (made / "model.safetensors").write_bytes(b"weights" * 1000)
    (made / "README.md").write_text("---\ntags: [x]\n---\n# Card\n", encoding="utf-8")
    (made / "report.html").write_text("<p>report</p>", encoding="utf-8")
    return made


def publish(folder: Path, public: bool = False) -> tuple[str, list[str]]:
    """The address, and what was told."""
    told: list[str] = []
    return Publisher(NAME, public, told.append).publish(folder, "merged model"), told


@pytest.mark.parametrize("public", [False, True])
def test_every_file_is_in_one_commit_of_a_new_repository(
    hub: HubServer, uploads: Uploads, folder: Path, public: bool
) -> None:
    address, _ = publish(folder, public)
    assert address == f"{hub.url}/{NAME}"
    repository = uploads.repositories[NAME]
    assert repository.private is not public
    assert repository.files == {file.name: file.read_bytes() for file in folder.iterdir()}
    assert repository.messages == ["Upload merged model (nlijob)"]


def test_a_public_repository_gets_nothing_unless_that_was_asked_for(
    hub: HubServer, uploads: Uploads, folder: Path
) -> None:
    uploads.repositories[NAME] = Uploaded(private=False)
    with pytest.raises(ConfigurationError, match="this repository is public"):
        publish(folder)
    assert uploads.repositories[NAME].files == {}
    publish(folder, public=True)
    assert uploads.repositories[NAME].files


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_refusal_names_the_repository_and_no_token(
    hub: HubServer, folder: Path, status: int
) -> None:
    hub.fail_next(9, status, "/commit/")
    with pytest.raises(NotAvailableError, match=f"{NAME} cannot be published: .*{status}") as error:
        publish(folder)
    assert "the same command publishes it" in error.value.hint
    assert TOKEN not in error.value.message + error.value.hint


def test_a_hub_that_cannot_be_reached_is_told(hub: HubServer, folder: Path) -> None:
    hub.close()
    with pytest.raises(NotAvailableError, match="cannot be published"):
        publish(folder)


def test_without_a_token_nothing_is_begun(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="no token"):
        publish(folder)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["demo", "a/b/c", "acme/de mo", "../x"])
def test_a_name_that_is_no_repository_is_refused(hub: HubServer, name: str) -> None:
    with pytest.raises(ConfigurationError, match="--push"):
        Publisher(name, public=False, tell=print)
