"""`report`: renders whole runs, and refuses the others with a message that says how to go on."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from nlijob import cli, records
from nlijob.records.job import HardwareSample, Prediction, RunRecord
from nlijob.records.outcome import Results
from nlijob.rundir import RunDir, write_record, write_records
from tests.synthetic import Spec, build_run, mark_stages


class Shown(NamedTuple):
    """How a command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to be copied."""
    return build_run(tmp_path_factory.mktemp("made"), Spec(epochs=2, gpu=False)).root


@pytest.fixture
def run(made: Path, tmp_path: Path) -> RunDir:
    return RunDir(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def report(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], Shown]:
    """Calls `report` on the run."""

    def called() -> Shown:
        monkeypatch.setattr(sys, "argv", ["entrypoint.py", "report", str(run.root)])
        return Shown(cli.main(), *capsys.readouterr())

    return called


def test_a_report_can_be_rendered_again_and_again(run: RunDir, report: Callable[[], Shown]) -> None:
    for _ in range(2):
        assert report().code == 0
        assert run.read_marker("report") is not None


def test_a_run_of_mixed_settings_is_refused_with_the_settings(
    run: RunDir, report: Callable[[], Shown]
) -> None:
    record = records.read(RunRecord, run.config)
    train = replace(record.config.train, learning_rate=0.003)
    write_record(run.config, replace(record, config=replace(record.config, train=train)))
    shown = report()
    assert shown.code == 4
    text = "train: train.learning_rate is 0.0002 in its marker and 0.003 in config.json"
    assert text in shown.err
    assert "`run` with the options of that run goes on" in shown.err
    assert not run.report.exists()


def test_labels_edited_to_be_all_right_are_refused(
    run: RunDir, report: Callable[[], Shown]
) -> None:
    rows = records.read_lines(Prediction, run.evaluate_predictions)
    write_records(run.evaluate_predictions, [replace(r, predicted=r.label) for r in rows])
    assert "evaluate/predictions.jsonl is missing or has changed" in report().err
    mark_stages(run)  # whoever edits the markers too
    shown = report()
    assert shown.code == 4
    assert "predicted is not the label of the highest probability" in shown.err


def test_predictions_that_do_not_add_up_to_their_result_are_refused(
    run: RunDir, report: Callable[[], Shown]
) -> None:
    rows = list(records.read_lines(Prediction, run.evaluate_predictions))
    sure = [1.0, 0.0, 0.0]
    right = [
        replace(r, predicted=r.label, probabilities=(*sure[-r.label :], *sure[: -r.label])[:3])
        if r.label
        else replace(r, predicted=0, probabilities=(1.0, 0.0, 0.0))
        for r in rows
    ]
    write_records(run.evaluate_predictions, right)
    mark_stages(run)
    shown = report()
    assert shown.code == 4
    assert "the predictions of the tuned model are right for 98 of 98 test rows" in shown.err


def test_another_epoch_than_the_selected_one_is_refused(
    run: RunDir, report: Callable[[], Shown]
) -> None:
    value = json.loads(run.selection.read_text("utf-8"))
    run.selection.write_text(json.dumps({**value, "epoch": 3 - value["epoch"]}), "utf-8")
    mark_stages(run)
    shown = report()
    assert shown.code == 4
    assert "by its validation scores epoch" in shown.err


def test_damaged_lines_of_logs_are_left_out_and_stated(
    run: RunDir, report: Callable[[], Shown]
) -> None:
    samples = list(records.read_lines(HardwareSample, run.hardware))
    with run.hardware.open("a") as handle:
        handle.write("\0\0\0\n{torn\n")
    with run.timings.open("a") as handle:
        handle.write("[" * 100_000 + "\n")
    assert report().code == 0
    results = records.read(Results, run.results)
    assert results.resources.samples == len(samples)
    (finding,) = (w for w in results.warnings if w.code == "incomplete-logs")
    assert finding.figures == {"timings.jsonl": 1, "hardware.jsonl": 2}
    assert finding.text.startswith("1 line of timings.jsonl and 2 lines of hardware.jsonl cannot ")
    assert "cannot be read and are left out" in run.report.read_text("utf-8")


def test_a_time_that_nothing_tells_any_more_is_not_measured(
    run: RunDir, report: Callable[[], Shown]
) -> None:
    run.timings.write_text("torn\n")
    assert report().code == 0
    assert "\ntime not measured; " in run.summary.read_text("utf-8")


def test_folders_in_the_place_of_what_it_writes_do_not_stop_it(
    run: RunDir, report: Callable[[], Shown]
) -> None:
    for file in (run.results, run.report, run.summary, run.marker("report")):
        (file / "inside").mkdir(parents=True)
    assert report().code == 0
    assert run.report.is_file()
