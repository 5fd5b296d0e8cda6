"""figures.json stands for a run only as long as nothing contradicts it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nlijob.analysis import history
from nlijob.analysis.history import read_entry
from nlijob.analysis.run_figures import read_run_figures
from nlijob.records.figures import RUN_FIGURES_VERSION
from nlijob.records.outcome import Results
from nlijob.records.serialization import read
from nlijob.report.render import listed_figures
from nlijob.rundir import RunDir, write_record
from tests.synthetic import Spec, build_run, finish


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run as the report stage leaves it, but for the page."""
    run = build_run(tmp_path_factory.mktemp("made") / "run", Spec(train_rows=20, epochs=1))
    write_record(run.figures, listed_figures(run, finish(run)))
    mark_report(run)
    return run


def mark_report(run: RunDir) -> None:
    marker = run.read_marker("report")
    assert marker is not None
    assert marker.inputs is not None
    run.mark_complete("report", marker.inputs, [run.results, run.figures])


@pytest.fixture
def run(made: RunDir, tmp_path: Path) -> RunDir:
    """A copy of it, to be changed."""
    return RunDir(Path(shutil.copytree(made.root, tmp_path / "run")))


def test_a_list_shows_the_same_as_from_the_results(run: RunDir) -> None:
    known = read_entry(run.root, "run")
    run.figures.unlink()
    assert read_entry(run.root, "run") == known


def test_the_results_of_such_a_run_are_not_read(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    opened = Path.read_bytes

    def watched(path: Path) -> bytes:
        read.append(run.name(path))
        return opened(path)

    monkeypatch.setattr(Path, "read_bytes", watched)
    monkeypatch.setattr(history, "read_outcome", None)
    assert read_entry(run.root, "run").state == "finished"
    markers = [run.name(run.marker(name)) for name in run.marked()]
    assert sorted(read) == sorted(["config.json", "figures.json", *markers])


def test_it_says_what_the_verdict_says(run: RunDir) -> None:
    known = read_run_figures(run)
    assert known is not None
    assert known.tone == "better"


def other_settings(run: RunDir) -> None:
    run.config.write_text(run.config.read_text("utf-8").replace('"r": 32', '"r": 64'), "utf-8")


def a_stage_again(run: RunDir) -> None:
    marker = run.read_marker("select")
    assert marker is not None
    assert marker.inputs is not None
    inputs = dataclasses.replace(marker.inputs, follows={"train": "x"})
    run.mark_complete("select", inputs, [run.selection])


def a_stage_begun(run: RunDir) -> None:
    run.unmark("evaluate")


def edited(run: RunDir) -> None:
    text = run.figures.read_text("utf-8")
    run.figures.write_text(text.replace('"gain": 0.', '"gain": 9.'), "utf-8")


def other_results(run: RunDir) -> None:
    run.results.write_text("{}")


def no_results(run: RunDir) -> None:
    run.results.unlink()


def not_reported(run: RunDir) -> None:
    run.unmark("report")


def of_another_version(run: RunDir) -> None:
    value = json.loads(run.figures.read_text("utf-8"))
    value["version"] = RUN_FIGURES_VERSION + 1
    run.figures.write_text(json.dumps(value), "utf-8")
    mark_report(run)


@pytest.mark.parametrize(
    "change",
    [
        *(other_settings, a_stage_again, a_stage_begun, edited, other_results, no_results),
        *(not_reported, of_another_version),
    ],
)
def test_it_does_not_stand_for_a_run_that_has_changed(
    run: RunDir, change: Callable[[RunDir], None]
) -> None:
    assert read_run_figures(run) is not None
    change(run)
    assert read_run_figures(run) is None


def test_it_never_stands_for_stages_that_do_not_belong_together(run: RunDir) -> None:
    a_stage_again(run)
    write_record(run.figures, listed_figures(run, read(Results, run.results)))
    mark_report(run)
    assert read_run_figures(run) is None
    assert read_entry(run.root, "run").state == "unfinished"
