"""The stand-in hub, tried with the real hub clients.

The clients are run in processes of their own, as few as will do: importing them takes seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.hub_server import (
    HubServer,
    client_environment,
    example_rows,
    write_phi_repository,
    write_snli_repository,
)

MODEL, DATASET = "acme/phi-mini", "acme/snli-mini"
COMMIT, OTHER_COMMIT = "0123456789abcdef" * 2 + "01234567", "f" * 40
ROWS = {"test": example_rows(10), "validation": example_rows(12), "train": example_rows(40)}

# Loads everything the hub has, and tells what came as JSON. Arguments: commit, split.
LOAD_ALL = f"""
import json, sys
from pathlib import Path
from datasets import load_dataset
from huggingface_hub import hf_hub_download, snapshot_download
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

commit, split = sys.argv[1:]
snapshot = Path(snapshot_download({MODEL!r}, revision=commit))
tokenizer = AutoTokenizer.from_pretrained({MODEL!r}, revision=commit)
model = AutoModelForCausalLM.from_pretrained({MODEL!r}, revision=commit)
data = load_dataset({DATASET!r}, "plain_text", revision=commit, split=split)
print(json.dumps({{
    "snapshot": str(snapshot),
    "files": sorted(path.name for path in snapshot.iterdir()),
    "config_file": hf_hub_download({MODEL!r}, "config.json", revision=commit),
    "architectures": AutoConfig.from_pretrained({MODEL!r}, revision=commit).architectures,
    "text": tokenizer.decode(tokenizer("A man rides a bike.")["input_ids"]),
    "weights": sum(float(weight.sum()) for weight in model.parameters()),
    "label_names": data.features["label"].names,
    "rows": [[row["premise"], row["hypothesis"], row["label"]] for row in data],
}}))
"""

# Names the errors that a commit unknown to the hub gives. Argument: commit.
FAIL_BOTH = f"""
import json, sys
from datasets import load_dataset
from huggingface_hub import snapshot_download

def error_of(call, *arguments):
    try:
        call(*arguments, revision=sys.argv[1])
    except Exception as error:
        return type(error).__name__

print(json.dumps([
    error_of(snapshot_download, {MODEL!r}),
    error_of(snapshot_download, "acme/unknown"),
    error_of(load_dataset, {DATASET!r}, "plain_text"),
    error_of(load_dataset, "acme/unknown", "plain_text"),
]))
"""

# The least that makes a request. Argument: commit.
SNAPSHOT = f"""
import json, sys
from huggingface_hub import snapshot_download

print(json.dumps(snapshot_download({MODEL!r}, revision=sys.argv[1])))
"""


class Folders(NamedTuple):
    """What the hub serves in these tests."""

    model: Path
    dataset: Path

    def hub(self) -> HubServer:
        """A hub that serves both under `COMMIT`."""
        return HubServer({MODEL: {COMMIT: self.model}}, {DATASET: {COMMIT: self.dataset}})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A model and a data set repository."""
    root = tmp_path_factory.mktemp("repositories")
    write_phi_repository(root / "model", seed=1)
    write_snli_repository(root / "dataset", ROWS)
    return Folders(root / "model", root / "dataset")


@pytest.fixture
def hub(folders: Folders) -> Iterator[HubServer]:
    """A running hub with both repositories."""
    with folders.hub() as hub:
        yield hub


def run_client(code: str, environment: dict[str, str], *arguments: str) -> Any:
    """What a client process prints as JSON in its last line."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def fetch(
    hub: HubServer, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one plain request."""
    request = urllib.request.Request(hub.url + path, body, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


@pytest.mark.slow  # two processes that import everything; tests/e2e/test_hub_job.py is the same way
def test_clients_load_by_commit_and_then_offline_without_the_hub(
    folders: Folders, tmp_path: Path
) -> None:
    with folders.hub() as hub:
        online = run_client(LOAD_ALL, client_environment(hub.url, tmp_path), COMMIT, "train")
    offline = run_client(
        # Prepared online for another split: all splits are prepared together.
        LOAD_ALL,
        client_environment(hub.url, tmp_path, offline=True),
        COMMIT,
        "test",
    )

    assert Path(online["snapshot"]).name == COMMIT
    assert {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    } <= set(online["files"])
    assert online["config_file"] == str(Path(online["snapshot"]) / "config.json")
    assert online["architectures"] == ["PhiForCausalLM"]
    assert online["text"] == "A man rides a bike."
    assert online["label_names"] == ["entailment", "neutral", "contradiction"]
    assert online["rows"] == [list(row) for row in ROWS["train"]]
    assert any(label == -1 for _, _, label in online["rows"])
    assert offline["rows"] == [list(row) for row in ROWS["test"]]
    same = set(online) - {"rows"}
    assert {key: offline[key] for key in same} == {key: online[key] for key in same}
    # Every request names the commit: nothing was asked of a branch.
    assert all(COMMIT in path for _, path in hub.requests)


def test_clients_report_an_unknown_commit_and_an_unknown_repository(
    hub: HubServer, tmp_path: Path
) -> None:
    errors = run_client(FAIL_BOTH, client_environment(hub.url, tmp_path), OTHER_COMMIT)

    assert errors == [
        "RevisionNotFoundError",
        "RepositoryNotFoundError",
        "DatasetNotFoundError",
        "DatasetNotFoundError",
    ]


def test_client_meets_a_failure_and_asks_again(hub: HubServer, tmp_path: Path) -> None:
    # HEAD of a file is what all versions of the client try again.
    path = f"/{MODEL}/resolve/{COMMIT}/tokenizer.json"
    hub.fail_next(1, status=503, path_part=path, method="HEAD")

    snapshot = run_client(SNAPSHOT, client_environment(hub.url, tmp_path), COMMIT)

    seen = [(method, status) for method, asked, status in hub.exchanges if asked == path]
    assert seen == [("HEAD", 503), ("HEAD", 200), ("GET", 200)]
    assert Path(snapshot, "tokenizer.json").is_file()


def test_file_headers_and_ranges(hub: HubServer, folders: Folders) -> None:
    path = f"/{MODEL}/resolve/{COMMIT}/config.json"
    content = (folders.model / "config.json").read_bytes()

    status, headers, body = fetch(hub, path, "HEAD")
    assert (status, body) == (200, b"")
    assert headers["Content-Length"] == str(len(content))
    assert headers["X-Repo-Commit"] == COMMIT
    assert headers["ETag"].strip('"')

    assert fetch(hub, path)[2] == content
    for asked, expected in (("5-", content[5:]), ("2-9", content[2:10]), ("-7", content[-7:])):
        status, headers, body = fetch(hub, path, Range=f"bytes={asked}")
        assert (status, body) == (206, expected)
        assert headers["Content-Range"].endswith(f"/{len(content)}")
    assert fetch(hub, path, Range=f"bytes={len(content)}-")[0] == 416


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (f"/acme/unknown/resolve/{COMMIT}/config.json", "RepoNotFound"),
        (f"/{DATASET}/resolve/{COMMIT}/README.md", "RepoNotFound"),
        (f"/api/models/{MODEL}/revision/{OTHER_COMMIT}", "RevisionNotFound"),
        (f"/{MODEL}/resolve/main/config.json", "RevisionNotFound"),
        (f"/api/models/{MODEL}", "RevisionNotFound"),
        (f"/{MODEL}/resolve/{COMMIT}/unknown.json", "EntryNotFound"),
        (f"/{MODEL}/resolve/{COMMIT}/../dataset/README.md", "EntryNotFound"),
        (f"/{MODEL}/resolve/{COMMIT}/%2e%2e/dataset/README.md", "EntryNotFound"),
        (f"/{MODEL}/resolve/{COMMIT}//etc/hostname", "EntryNotFound"),
        (f"/api/models/{MODEL}/tree/{COMMIT}/unknown", "EntryNotFound"),
    ],
)
def test_refusals(hub: HubServer, path: str, code: str) -> None:
    status, headers, _ = fetch(hub, path)

    assert (status, headers["X-Error-Code"]) == (404, code)


def test_a_link_out_of_the_folder_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "link").symlink_to(tmp_path / "secret")

    with HubServer(models={MODEL: {COMMIT: repository}}) as hub:
        assert fetch(hub, f"/{MODEL}/resolve/{COMMIT}/link")[0] == 404
        assert json.loads(fetch(hub, f"/api/models/{MODEL}/tree/{COMMIT}")[2]) == []


def test_listings(hub: HubServer) -> None:
    tree = f"/api/datasets/{DATASET}/tree/{COMMIT}"
    top = json.loads(fetch(hub, tree)[2])
    whole = json.loads(fetch(hub, f"{tree}?recursive=True")[2])
    inner = json.loads(fetch(hub, f"{tree}/plain_text")[2])
    asked = fetch(
        hub,
        f"/api/datasets/{DATASET}/paths-info/{COMMIT}",
        "POST",
        b"paths=README.md&paths=plain_text&paths=unknown&expand=False",
    )

    files = {f"plain_text/{split}-00000-of-00001.parquet" for split in ROWS}
    assert {entry["path"] for entry in top} == {"README.md", "plain_text"}
    assert {entry["path"] for entry in inner} == files
    assert {entry["path"] for entry in whole} == {"README.md", "plain_text"} | files
    assert all(entry["lfs"]["size"] == entry["size"] for entry in inner)
    assert [entry["type"] for entry in json.loads(asked[2])] == ["file", "directory"]


def test_main_is_served_if_told_so(folders: Folders) -> None:
    with HubServer(models={MODEL: {COMMIT: folders.model}}, main={MODEL: COMMIT}) as hub:
        assert json.loads(fetch(hub, f"/api/models/{MODEL}")[2])["sha"] == COMMIT
        headers = fetch(hub, f"/{MODEL}/resolve/main/config.json", "HEAD")[1]

    assert headers["X-Repo-Commit"] == COMMIT


def test_failures_may_be_limited_to_a_path_and_a_method(hub: HubServer) -> None:
    path = f"/{MODEL}/resolve/{COMMIT}/config.json"
    hub.fail_next(2, status=500, path_part="config", method="GET")

    statuses = [fetch(hub, path, method)[0] for method in ("HEAD", "GET", "GET", "GET")]

    assert statuses == [200, 500, 500, 200]
    hub.forget_requests()
    assert hub.requests == []


def test_a_branch_name_is_no_commit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'main'"):
        HubServer(models={MODEL: {"main": tmp_path}})


def test_the_same_seed_gives_the_same_model(folders: Folders, tmp_path: Path) -> None:
    write_phi_repository(tmp_path / "same", seed=1, tokenizer_dir=folders.model)
    write_phi_repository(tmp_path / "other", seed=2, tokenizer_dir=folders.model)
    shard = "model-00001-of-00002.safetensors"

    def content(folder: Path, name: str) -> bytes:
        return (folder / name).read_bytes()

    assert content(tmp_path / "same", shard) == content(folders.model, shard)
    assert content(tmp_path / "other", shard) != content(folders.model, shard)
    copied = content(tmp_path / "other", "tokenizer.json")
    assert copied == content(folders.model, "tokenizer.json")
