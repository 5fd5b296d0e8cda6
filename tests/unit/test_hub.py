"""Models and data sets through the real hub clients, from a stand-in hub on loopback.

The clients read where the hub is when they are imported, so they run in processes of their own;
these are few, as each takes seconds to start.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nlijob import hub
from nlijob.config import ModelConfig
from nlijob.demo import MODEL_DIR
from nlijob.errors import NotAvailableError
from nlijob.hub import Hub, folder_stamp, local_folder
from tests import jobs
from tests.hub_server import HubServer, client_environment, example_rows, write_snli_repository

MODEL, FLAKY, GATED, DATA = "acme/model", "acme/flaky", "acme/gated", "acme/snli"
COMMIT, OLD_COMMIT, UNKNOWN_COMMIT = "a" * 40, "b" * 40, "c" * 40
ROWS = {"train": example_rows(40), "validation": example_rows(12), "test": example_rows(10)}

# Makes the calls given as JSON; prints the value or error of each, and the lines told meanwhile.
CLIENT = """
import json, sys
from nlijob import hub
from nlijob.config import ModelConfig
from nlijob.errors import NotAvailableError
from nlijob.hub_requests import Limits

limits = Limits(first_wait_s=0.01)
calls, offline = json.loads(sys.argv[1])
answers = {}
for name, (kind, arguments) in calls.items():
    told = []
    asked = hub.Hub(offline, told.append, limits)
    try:
        if kind == "model":
            value = str(asked.model_folder(ModelConfig(**arguments)))
        else:
            value = [dict(row) for row in asked.load_split(**arguments)]
    except NotAvailableError as error:
        value = {"message": error.message, "hint": error.hint}
    answers[name] = {"value": value, "told": told}
print(json.dumps(answers))
"""


def model(name: str = MODEL, revision: str = COMMIT) -> tuple[str, dict[str, str]]:
    return "model", {"name": name, "revision": revision}


def data(
    split: str = "test",
    dataset: str = DATA,
    revision: str = COMMIT,
    config_name: str = "plain_text",
) -> tuple[str, dict[str, str]]:
    return "data", {
        "dataset": dataset,
        "config_name": config_name,
        "revision": revision,
        "split": split,
    }


class Answers(NamedTuple):
    """Values, errors and told lines of the calls, by name."""

    content: dict[str, Any]

    def value(self, call: str) -> Any:
        return self.content[call]["value"]

    def error(self, call: str) -> dict[str, str]:
        value = self.value(call)
        assert isinstance(value, dict), f"{call} did not fail: {value}"
        return value

    def told(self, call: str) -> list[str]:
        told: list[str] = self.content[call]["told"]
        return told


def ask(
    environment: dict[str, str], calls: dict[str, tuple[str, dict[str, str]]], offline: bool
) -> Answers:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps([calls, offline])],
        cwd=jobs.ROOT,
        env={
            **environment,
            "PYTHONPATH": os.pathsep.join([str(jobs.ROOT), *filter(None, sys.path)]),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Answers(json.loads(done.stdout.splitlines()[-1]))


FURTHER = f"""
extends = "phi2"

[[transfer]]
name = "older-rows"
dataset = "{DATA}"
revision = "{OLD_COMMIT}"
config_name = "plain_text"
split = "validation"
"""
"""A recipe with a further test set from the hub."""


class Served(NamedTuple):
    """Answers to the calls, and two runs of `prefetch`, the second after the hub was shut down."""

    online: Answers
    offline: Answers
    requests_offline: int
    prefetched: subprocess.CompletedProcess[str]
    prefetched_offline: subprocess.CompletedProcess[str]


def safetensors(content: bytes, name: str = "a") -> bytes:
    """A weights file with one tensor of bytes."""
    size = len(content)
    header = json.dumps({name: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}})
    return len(header).to_bytes(8, "little") + header.encode() + content


def write_model(folder: Path, weights: bytes) -> None:
    """The files of a model that the parent reads, and one that it does not need."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "phi"}', encoding="utf-8")
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}', encoding="utf-8")
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "pytorch_model.bin").write_bytes(weights)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    root = tmp_path_factory.mktemp("hub")
    write_model(root / "new", safetensors(b"new weights"))
    write_model(root / "old", safetensors(b"old weights"))
    write_snli_repository(root / "data", ROWS)
    old_rows = {split: rows[:5] for split, rows in ROWS.items()}
    write_snli_repository(root / "old-data", old_rows)
    hub = HubServer(
        models={
            MODEL: {COMMIT: root / "new", OLD_COMMIT: root / "old"},
            **{name: {COMMIT: root / "new"} for name in (FLAKY, GATED)},
        },
        datasets={DATA: {COMMIT: root / "data", OLD_COMMIT: root / "old-data"}},
    )
    home, prefetch_home = root / "home", root / "prefetch-home"
    recipe = root / "further.toml"
    recipe.write_text(FURTHER, encoding="utf-8")
    prefetch = (
        *("prefetch", "--recipe", recipe, "--model", MODEL, "--dataset", DATA),
        *("--set", f"model.revision={COMMIT}", "--set", f"data.revision={COMMIT}"),
        *("--set", "data.config_name=plain_text", "--train-stride", "2", "--test-stride", "1"),
    )
    calls = {
        "model": model(),
        "old model": model(revision=OLD_COMMIT),
        "flaky": model(FLAKY),
        "gated": model(GATED),
        "unknown model": model("acme/none"),
        "unknown revision": model(revision=UNKNOWN_COMMIT),
        **{split: data(split) for split in ROWS},
        "old data": data(revision=OLD_COMMIT),
        "unknown data": data(dataset="acme/none"),
        "unknown split": data("dev"),
        "unknown config": data(config_name="fancy_text"),
    }
    with hub:
        hub.fail_next(1, 503, f"/{FLAKY}/resolve/{COMMIT}/model.safetensors", "GET")
        hub.fail_next(99, 403, GATED)
        online = ask(client_environment(hub.url, home), calls, offline=False)
        env = client_environment(hub.url, prefetch_home)
        prefetched = jobs.run(*prefetch, env=env)
        hub.forget_requests()
        offline = ask(client_environment(hub.url, home), calls, offline=True)
        requests_offline = len(hub.requests)
    prefetched_offline = jobs.run(*prefetch, "--offline", env=env)
    return Served(online, offline, requests_offline, prefetched, prefetched_offline)


# ---------------------------------------------------------------- online


def test_a_model_is_downloaded_at_its_revision(served: Served) -> None:
    for call, content in (("model", b"new weights"), ("old model", b"old weights")):
        folder = Path(served.online.value(call))
        assert (folder / "model.safetensors").read_bytes() == safetensors(content)


def test_files_that_a_job_does_not_need_are_not_downloaded(served: Served) -> None:
    names = {path.name for path in Path(served.online.value("model")).iterdir()}
    assert names == {"config.json", "tokenizer.json", "model.safetensors"}


@pytest.mark.parametrize("split", ROWS)
def test_a_split_has_the_rows_of_its_revision(served: Served, split: str) -> None:
    assert served.online.value(split) == [row._asdict() for row in ROWS[split]]


def test_another_revision_has_other_rows(served: Served) -> None:
    assert len(served.online.value("old data")) == 5


def test_a_failed_request_is_retried_and_reported(served: Served) -> None:
    assert Path(served.online.value("flaky")).is_dir()
    (told,) = served.online.told("flaky")
    assert "503" in told
    assert "again in" in told


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("unknown model", "model acme/none at revision"),
        ("unknown revision", f"model {MODEL} at revision {UNKNOWN_COMMIT}"),
        ("unknown data", "dataset acme/none at revision"),
        ("gated", f"model {GATED} at revision"),
    ],
)
def test_a_refusal_of_the_hub_is_reported_and_not_retried(
    served: Served, call: str, name: str
) -> None:
    error = served.online.error(call)
    assert name in error["message"]
    assert "HF_TOKEN" in error["hint"]
    assert served.online.told(call) == []


@pytest.mark.parametrize("call", ["unknown split", "unknown config"])
def test_a_missing_split_or_configuration_is_reported(served: Served, call: str) -> None:
    error = served.online.error(call)
    assert f"data set {DATA}, split" in error["message"]
    assert "config_name" in error["hint"]


# ---------------------------------------------------------------- offline


def test_offline_no_request_is_made_even_if_the_hub_is_up(served: Served) -> None:
    assert served.requests_offline == 0


@pytest.mark.parametrize("call", ["model", "old model", "flaky", *ROWS, "old data"])
def test_downloaded_repositories_are_available_offline(served: Served, call: str) -> None:
    assert served.offline.value(call) == served.online.value(call)


@pytest.mark.parametrize("call", ["unknown model", "unknown revision", "unknown data"])
def test_a_missing_repository_is_reported_with_the_command_to_get_it(
    served: Served, call: str
) -> None:
    assert "is not available" in served.offline.error(call)["message"]
    assert "run `prefetch`" in served.offline.error(call)["hint"]


# ---------------------------------------------------------------- prefetch


def test_prefetch_prints_what_it_downloaded(served: Served) -> None:
    assert served.prefetched.returncode == 0, served.prefetched.stderr
    assert f"model {MODEL}: " in served.prefetched.stdout
    # every second of 40 rows: the even ones, all of which have a label
    assert f"data set {DATA}, train: 40 rows, 20 in the subset" in served.prefetched.stdout
    assert f"data set {DATA}, test: 10 rows, 9 in the subset" in served.prefetched.stdout


def test_a_further_test_set_is_fetched_at_its_own_revision(served: Served) -> None:
    assert "further set older-rows: 5 rows, 5 taken" in served.prefetched.stdout


def test_a_second_prefetch_offline_prints_the_same(served: Served) -> None:
    assert served.prefetched_offline.returncode == 0, served.prefetched_offline.stderr
    assert served.prefetched_offline.stdout == served.prefetched.stdout


# ---------------------------------------------------------------- local folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "model", safetensors(b"weights"))
    return tmp_path / "model"


def local_model(folder: Path) -> Path:
    return Hub(True, print).model_folder(ModelConfig(str(folder)))


def test_the_demo_model_is_the_embedded_one() -> None:
    assert Hub(True, print).model_folder(ModelConfig("demo")) == MODEL_DIR


def test_a_local_model_is_used_in_place(folder: Path) -> None:
    assert local_model(folder) == folder


def test_a_local_model_that_cannot_be_used_is_refused_before_anything_is_started(
    folder: Path,
) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(NotAvailableError, match=r"has no model\.safetensors"):
        Hub(True, print).check_local(ModelConfig(str(folder)))


def test_a_folder_named_demo_is_not_taken_for_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    Hub(True, print).check_local(ModelConfig("demo"))
    assert Hub(True, print).model_folder(ModelConfig("demo")) == MODEL_DIR


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_an_incomplete_model_folder_names_the_missing_files(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(NotAvailableError, match=f"has no {file}$"):
        local_model(folder)


def test_missing_shards_are_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}), encoding="utf-8")
    with pytest.raises(NotAvailableError, match=r"has no model-2\.safetensors$"):
        local_model(folder)
    (folder / "model-2.safetensors").write_bytes(safetensors(b"weights", "b"))
    assert local_model(folder) == folder


@pytest.mark.parametrize("name", ["./model", "/nowhere/model", "~/nowhere/model", "a/b/c"])
def test_a_path_must_be_a_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotAvailableError, match=r"no such folder") as caught:
        local_folder(name, "model", "model.name")
    assert "model.name takes a folder or a hub id" in caught.value.hint


@pytest.mark.parametrize("name", ["phi", "owner/phi"])
def test_a_hub_id_is_not_a_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_folder(name, "model", "model.name") is None


def test_a_folder_named_like_a_hub_id_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "phi").mkdir(parents=True)
    assert local_folder("owner/phi", "model", "model.name") == tmp_path / "owner" / "phi"


def test_the_stamp_of_a_folder_changes_with_content_and_names(folder: Path) -> None:
    stamps = [folder_stamp(folder, ["*.json"])]
    content = (folder / "config.json").read_bytes()
    (folder / "config.json").write_bytes(content[:-1] + b" ")
    stamps.append(folder_stamp(folder, ["*.json"]))
    (folder / "config.json").rename(folder / "other.json")
    stamps.append(folder_stamp(folder, ["*.json"]))
    assert len(set(stamps)) == len(stamps)


def test_every_byte_of_a_large_file_changes_its_stamp(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "PIECE_BYTES", 10)
    monkeypatch.setattr("nlijob.files.READ_BYTES", 4)
    stamps = set()
    for size in (0, 9, 10, 11, 20, 25):
        (folder / "model.safetensors").write_bytes(bytes(size))
        stamps.add(folder_stamp(folder, ["*.safetensors"]))
        for place in range(size):
            content = bytearray(size)
            content[place] = 1
            (folder / "model.safetensors").write_bytes(content)
            stamps.add(folder_stamp(folder, ["*.safetensors"]))
    assert len(stamps) == 6 + 9 + 10 + 11 + 20 + 25


def test_a_copy_of_a_folder_has_the_same_stamp(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    os.utime(copy / "config.json", ns=(1, 1))
    (copy / "notes.md").write_text("read by nobody", encoding="utf-8")
    patterns = ["*.json", "*.safetensors"]
    assert folder_stamp(copy, patterns) == folder_stamp(folder, patterns)
