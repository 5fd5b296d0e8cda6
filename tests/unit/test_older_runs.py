"""A run that version 0.1.0 wrote (record format 2) still renders, compares and is listed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from nlijob import cli
from nlijob.analysis.outcome import build_results
from nlijob.records.serialization import dump
from tests.synthetic import Spec, build_run

KEPT = Path(__file__).parents[1] / "data" / "run-0.1.0"


@pytest.fixture(scope="module")
def new_results(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    run = build_run(tmp_path_factory.mktemp("new"), Spec(demo=True, gpu=False))
    return dump(build_results(run)).encode()


@pytest.fixture
def runs(tmp_path: Path, new_results: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runs that holds the older run and a present one; also the current folder."""
    shutil.copytree(KEPT, tmp_path / "old")
    run = build_run(tmp_path / "new", Spec(demo=True, gpu=False))
    run.results.write_bytes(new_results)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["entrypoint.py", *arguments])
    return cli.main()


def figures(record: dict[str, Any]) -> dict[str, Any]:
    """The values of a record but for its display texts."""
    return {key: value for key, value in record.items() if key not in ("name", "meaning")}


def test_an_older_run_renders_with_its_figures(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = json.loads((runs / "old" / "results.json").read_text("utf-8"))
    assert call(monkeypatch, "report", "old") == 0
    after = json.loads((runs / "old" / "results.json").read_text("utf-8"))
    for key in ("base", "tuned", "gain", "epochs", "controls", "total_s", "attempts", "cost"):
        assert after[key] == before[key]
    assert before["resources"].items() <= after["resources"].items()
    assert [figures(one) for one in after["slices"]] == [figures(one) for one in before["slices"]]
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
