"""`export` with a stand-in for the GPU side: what is written, said, refused and left behind."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

from nlijob import cli, records, stopping
from nlijob.attempt import Moment
from nlijob.errors import DiskError, JobError
from nlijob.records.job import Prediction, of_split
from nlijob.records.outcome import Results
from nlijob.records.use import ExportRecord, MergedModel, UseTask
from nlijob.report.export_card import merged_snippet
from nlijob.rundir import RunDir, write_record, write_records
from nlijob.stopping import Stopped
from nlijob.use import export, tuned
from nlijob.use.workspace import Workspace
from tests.hub_server import HubServer
from tests.hub_uploads import Uploads
from tests.in_process import Shown
from tests.synthetic import STAMPS, Spec, build_run, finish

TOKEN = "hf_secret_of_the_test"


class StandIn:
    """Writes a file in place of a model; it answers the first row otherwise than the run did."""

    launched = Moment(0.0, 0.0)
    run: RunDir
    error: BaseException | None = None

    def __init__(self, run: RunDir, device: str, work: str, trusts_code: bool) -> None:
        self._place = Workspace(run.root)
        assert (device, work, trusts_code) == ("cpu", "export", False)

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self) -> None:
        pass

    def give(self, task: object) -> None:
        pass

    def follow(self, on_progress: object) -> None:
        target = Path(records.read(UseTask, self._place.task).target)
        (target / "model.safetensors").write_bytes(b"merged")
        if self.error is not None:
            raise self.error
        predictions = of_split(
            records.read_lines(Prediction, self.run.evaluate_predictions), "test"
        )
        first, *others = predictions
        turned = (first.label + 1) % 3 if first.is_right else first.label
        shares = tuple(0.5 if label == turned else 0.25 for label in range(3))
        changed = {**vars(first), "predicted": turned, "probabilities": shares}
        write_records(self._place.predictions, [Prediction(**changed), *others])
        write_record(self._place.merged, MergedModel("float32"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an adapter, to be copied."""
    run = build_run(
        tmp_path_factory.mktemp("made"), Spec(epochs=2, gpu=False, demo=True, rows=12, train_rows=9)
    )
    run.adapter.mkdir()
    save_file({"weight": np.zeros(2)}, run.adapter / "adapter_model.safetensors")
    (run.adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
    return run.root


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    copied = RunDir(shutil.copytree(made, tmp_path / "run"))
    monkeypatch.setattr(stopping, "raise_on_signals", lambda: None)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(export, "GpuSide", StandIn)
    monkeypatch.setattr(export, "report_html", lambda *_: "<p>the report</p>")
    monkeypatch.setattr(StandIn, "run", copied, raising=False)
    monkeypatch.setattr(StandIn, "error", None)
    monkeypatch.setattr(tuned, "model_stamp", lambda *_: STAMPS["model"])
    return copied


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Uploads]:
    """What a hub gets that is reached by the token of the environment."""
    taken = Uploads(TOKEN)
    with HubServer(uploads=taken) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the hub here has plain LFS
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield taken


@pytest.fixture
def called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Shown]:
    """Calls `export`."""

    def call(*arguments: str | Path) -> Shown:
        monkeypatch.setattr(sys, "argv", ["entrypoint.py", "export", *map(str, arguments)])
        return Shown(cli.main(), *capsys.readouterr())

    return call


def test_both_accuracies_stand_in_output_card_and_record(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shown = called(run.root, out)
    assert shown.code == 0, shown.err
    record = records.read(ExportRecord, out / "nlijob-export.json")
    assert record.export_test is not None
    assert (record.run_test.rows, record.same_answers) == (12, 11)
    assert abs(record.run_test.correct - record.export_test.correct) == 1
    both = f"({record.run_test.correct} and {record.export_test.correct} of 12 rows"
    assert both in shown.out
    card = (out / "README.md").read_text("utf-8")
    for score in (record.run_test, record.export_test):
        assert f"{100 * score.accuracy:.1f} % (" in card
    assert "11 of 12 test rows alike" in card
    assert (out / "report.html").read_text("utf-8") == "<p>the report</p>"


def test_a_folder_that_exists_is_left_as_it_is(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x", encoding="utf-8")
    shown = called(run.root, tmp_path / "out")
    assert shown.code == 2
    assert "exists already" in shown.err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(DiskError("the disk is full"), 74), (Stopped("SIGTERM"), 75), (JobError("bug"), 70)],
    ids=["disk", "stop", "bug"],
)
def test_an_export_that_fails_leaves_no_folder(
    run: RunDir,
    called: Callable[..., Shown],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
) -> None:
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(StandIn, "error", error)
    assert called(run.root, tmp_path / "out").code == code
    assert sorted(tmp_path.iterdir()) == before


def test_temporary_files_are_kept_only_where_an_internal_error_needs_its_log(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert called(run.root, tmp_path / "out").code == 0
    assert list((tmp_path / "temporary").iterdir()) == []
    monkeypatch.setattr(StandIn, "error", JobError("bug"))
    assert called(run.root, tmp_path / "other").code == 70
    assert len(list((tmp_path / "temporary").iterdir())) == 1


def test_an_exported_adapter_can_be_used_without_its_run(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path
) -> None:
    assert called(run.root, tmp_path / "out", "--adapter").code == 0
    found = tuned.find_tuned(tmp_path / "out")
    of_run = tuned.find_tuned(run.root)
    assert (found.stamp, found.label_tokens) == (of_run.stamp, of_run.label_tokens)
    assert found.config.prompt == of_run.config.prompt
    assert records.read(ExportRecord, tmp_path / "out" / "nlijob-export.json").export_test is None


def test_a_damaged_run_is_refused(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path
) -> None:
    run.prompt.write_text("{}", encoding="utf-8")
    assert called(run.root, tmp_path / "out").code == 4
    assert not (tmp_path / "out").exists()


def test_an_adapter_without_its_run_is_refused(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path
) -> None:
    called(run.root, tmp_path / "adapter", "--adapter")
    shown = called(tmp_path / "adapter", tmp_path / "out")
    assert shown.code == 2
    assert "name the run's folder" in shown.err


@pytest.mark.parametrize("kind", [(), ("--adapter",)], ids=["merged", "adapter"])
def test_an_export_is_published_with_card_and_report(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path, uploads: Uploads, kind: tuple[str]
) -> None:
    out = tmp_path / "out"
    shown = called(run.root, out, "--push", "acme/nli", *kind)
    assert shown.code == 0, shown.err
    repository = uploads.repositories["acme/nli"]
    assert repository.private
    assert repository.files == {file.name: file.read_bytes() for file in out.iterdir()}
    assert {"README.md", "report.html", "nlijob-export.json"} < repository.files.keys()
    assert TOKEN not in shown.out + shown.err
    assert not any(TOKEN.encode() in content for content in repository.files.values())


def test_an_export_whose_upload_failed_is_published_without_merging_again(
    run: RunDir,
    called: Callable[..., Shown],
    tmp_path: Path,
    uploads: Uploads,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert called(run.root, tmp_path / "out", "--push", "acme/nli").code == 4
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(StandIn, "error", AssertionError("merged again"))
    assert called(run.root, tmp_path / "out", "--push", "acme/nli").code == 0
    assert "model.safetensors" in uploads.repositories["acme/nli"].files


def test_the_folder_of_another_export_is_not_published(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path, uploads: Uploads
) -> None:
    assert called(run.root, tmp_path / "out", "--adapter").code == 0
    shown = called(run.root, tmp_path / "out", "--push", "acme/nli")
    assert shown.code == 2
    assert uploads.repositories == {}


def test_public_without_push_is_refused(called: Callable[..., Shown], tmp_path: Path) -> None:
    assert called(tmp_path, tmp_path / "out", "--public").code == 2


@pytest.mark.parametrize("head", ["causal", "sequence-classification"])
def test_the_cards_script_needs_the_folder_alone(tmp_path: Path, head: Any) -> None:
    results: Results = finish(build_run(tmp_path, Spec(rows=12, train_rows=9, head=head)))
    script = merged_snippet(results, "bfloat16")
    compile(script, "card", "exec")
    assert 'MODEL = "."' in script
    assert "dtype=torch.bfloat16" in script
    left = [word for word in ("peft", "Peft", "ADAPTER", "REVISION", "4bit") if word in script]
    assert left == []


def test_the_record_is_json_that_others_can_read(
    run: RunDir, called: Callable[..., Shown], tmp_path: Path
) -> None:
    called(run.root, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "nlijob-export.json").read_text("utf-8"))
    assert record["kind"] == "merged"
    assert record["config"]["model"]["name"] == "demo"
