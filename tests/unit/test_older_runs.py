"""Runs of versions 0.1.0 and 0.2.0 (formats 2 and 3) still render, compare and are listed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from nlijob import cli
from tests.synthetic import Spec, build_run, finish

REDEFINED = ("numbers",)
"""Slices that hold other rows than the older versions said: numerals in words count too."""
DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def new_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = build_run(tmp_path_factory.mktemp("new"), Spec(demo=True, gpu=False))
    finish(run)
    return run.root


@pytest.fixture(params=["run-0.1.0", "run-0.2.0"])
def kept(request: pytest.FixtureRequest) -> str:
    """The name of a run that an older version wrote."""
    return str(request.param)


@pytest.fixture
def runs(kept: str, tmp_path: Path, new_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runs that holds the older run and a present one; also the current folder."""
    shutil.copytree(DATA / kept, tmp_path / "old")
    shutil.copytree(new_run, tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["entrypoint.py", *arguments])
    return cli.main()


def figures(record: dict[str, Any]) -> dict[str, Any]:
    """The values of a record but for its display texts."""
    return {key: value for key, value in record.items() if key not in ("name", "meaning")}


def as_before(after: Any, before: Any) -> Any:
    """A newer value without the keys that the older one does not have."""
    if isinstance(before, dict):
        return {key: as_before(after[key], old) for key, old in before.items()}
    if isinstance(before, list) and len(after) == len(before):
        return [as_before(*pair) for pair in zip(after, before, strict=True)]
    return after


def test_an_older_run_renders_with_its_figures(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = json.loads((runs / "old" / "results.json").read_text("utf-8"))
    assert call(monkeypatch, "report", "old") == 0
    after = json.loads((runs / "old" / "results.json").read_text("utf-8"))
    for key in ("base", "tuned", "gain", "epochs", "controls", "resources", "total_s", "cost"):
        assert as_before(after[key], before[key]) == before[key]
    assert after["attempts"] == before["attempts"]
    slices = [figures(one) for one in before["slices"] if one["key"] not in REDEFINED]
    now = [figures(one) for one in after["slices"] if one["key"] not in REDEFINED]
    assert as_before(now, slices) == slices
    stages = {stage["stage"]: stage for stage in after["stages"]}
    for old in before["stages"]:
        assert {key: stages[old["stage"]][key] for key in old} == old
    page = (runs / "old" / "report.html").read_text("utf-8")
    assert "16 of 36" in page


@pytest.mark.parametrize("pair", [("old", "new"), ("new", "old")])
def test_an_older_run_compares_with_a_present_one(
    runs: Path, monkeypatch: pytest.MonkeyPatch, pair: tuple[str, str]
) -> None:
    assert call(monkeypatch, "compare", *pair) == 0
    figures = json.loads(Path("compare.json").read_text("utf-8"))["runs"]
    assert {one["figures"]["test_rows"] for one in figures} == {36, 98}


def test_an_older_run_compares_with_a_copy_of_itself(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(runs / "old", runs / "copy")
    assert call(monkeypatch, "compare", "old", "copy") == 0
    (against,) = json.loads(Path("compare.json").read_text("utf-8"))["against"]
    assert (against["common_rows"], against["tuned"]["difference"]) == (36, 0.0)


def test_an_older_run_is_listed_among_finished_runs(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(monkeypatch, "index", ".") == 0
    listed = json.loads(Path("index.json").read_text("utf-8"))["runs"]
    assert {run["folder"]: run["state"] for run in listed} == {
        "old": "finished",
        "new": "finished",
    }


# ---------------------------------------------------------------- what does not belong together


def report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The error of `report`, which must end with 4."""
    assert call(monkeypatch, "report", "old") == 4
    return capsys.readouterr().err


@pytest.mark.usefixtures("runs")
def test_an_older_run_started_again_with_other_settings_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Path("old/config.json")
    config.write_text(config.read_text("utf-8").replace('"r": 16', '"r": 8'), "utf-8")
    text = "train: lora.r is 16 in results.json and 8 in config.json"
    assert text in report(monkeypatch, capsys)


@pytest.mark.usefixtures("runs")
def test_an_older_run_with_a_later_training_than_its_evaluation_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("train", "select", "train-epoch-1", "train-epoch-2"):
        marker = Path(f"old/markers/{stage}.json")
        value = json.loads(marker.read_text("utf-8"))
        value |= {"finished_at": "2027-01-01T00:00:00+00:00", "fingerprint": stage}
        value |= {"fingerprint": "select" if stage == "select" else "train"}
        marker.write_text(json.dumps(value), "utf-8")
    text = "evaluate was made before the select in the folder"
    assert text in report(monkeypatch, capsys)


@pytest.mark.usefixtures("runs")
def test_a_file_of_another_size_in_an_older_run_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("old/baseline/predictions.jsonl").open("a") as handle:
        handle.write("\n")
    text = "baseline: baseline/predictions.jsonl is missing or has changed"
    assert text in report(monkeypatch, capsys)


def test_the_task_of_an_older_run_shows_a_stage_of_other_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(DATA / "run-0.2.0", tmp_path / "old")
    monkeypatch.chdir(tmp_path)
    task = Path("old/worker/task.json")
    value = json.loads(task.read_text("utf-8"))
    value["fingerprints"]["evaluate"] = "of the next attempt"
    task.write_text(json.dumps(value), "utf-8")
    text = "evaluate: of other inputs than those of the last attempt"
    assert text in report(monkeypatch, capsys)
