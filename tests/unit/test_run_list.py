"""`runs` tells how far each run is and what came of it, and reads little of it."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from nlijob.commands.runs import command
from nlijob.config import ReportConfig
from nlijob.errors import NotAvailableError
from nlijob.report.render import listed_figures
from nlijob.run_list import ListedRun, list_runs, table
from nlijob.rundir import RunDir, write_record
from tests.jobs import ROOT
from tests.synthetic import Spec, build_run, finish

SMALL = Spec(train_rows=20, epochs=1)


def finished(root: Path, spec: Spec = SMALL) -> RunDir:
    """A run as the report stage leaves it, but for the page."""
    run = build_run(root, spec)
    write_record(run.figures, listed_figures(run, finish(run)))
    marker = run.read_marker("report")
    assert marker is not None
    assert marker.inputs is not None
    run.mark_complete("report", marker.inputs, [run.results, run.figures])
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("made") / "run").root


@pytest.fixture
def run(made: Path, tmp_path: Path) -> RunDir:
    """A finished run in a folder of runs, to be changed."""
    return RunDir(Path(shutil.copytree(made, tmp_path / "runs" / "run")))


def listed(run: RunDir) -> ListedRun:
    (found,) = list_runs(run.root.parent)
    return found


def said(run: RunDir, *lines: str) -> None:
    run.console_log.parent.mkdir(exist_ok=True)
    run.console_log.write_text("\n".join(lines) + "\n", encoding="utf-8")


def unfinished(run: RunDir) -> None:
    for stage in ("report", "explain", "evaluate"):
        run.unmark(stage)


# ---------------------------------------------------------------- states


def test_a_finished_run_has_verdict_accuracies_and_date(run: RunDir) -> None:
    found = listed(run)
    assert (found.state, found.stage, found.verdict) == ("done", "", "better")
    assert found.accuracy_before is not None
    assert found.accuracy_after is not None
    assert found.accuracy_before < found.accuracy_after
    assert found.started_at == "2026-01-02T03:04:05+00:00"


def test_a_missed_gate_is_said(tmp_path: Path) -> None:
    spec = replace(SMALL, report=ReportConfig(min_accuracy=1.0))
    assert listed(finished(tmp_path / "runs" / "run", spec)).state == "gate not reached"


def test_a_run_that_ended_without_an_error_is_stopped_at_its_next_stage(run: RunDir) -> None:
    unfinished(run)
    said(run, "--- first", "error: no such model", "--- second", "evaluate: begins")
    found = listed(run)
    assert (found.state, found.stage, found.reason) == ("stopped", "evaluate", "")
    assert (found.verdict, found.accuracy_after) == ("", None)
    assert found.started_at == "2026-01-02T03:04:05+00:00"


def test_a_stop_signal_is_no_failure(run: RunDir) -> None:
    unfinished(run)
    said(run, "--- first", "error: stopped (SIGTERM)", "hint: the same command resumes")
    assert listed(run).state == "stopped"


def test_a_run_whose_last_attempt_ended_with_an_error_has_failed(run: RunDir) -> None:
    unfinished(run)
    said(run, "--- first", "--- second", "error: out of memory: 3 GiB", "hint: fewer rows")
    found = listed(run)
    assert (found.state, found.stage, found.reason) == (
        *("failed", "evaluate", "out of memory: 3 GiB"),
    )


def test_a_locked_run_is_running_and_listing_takes_no_lock(run: RunDir) -> None:
    unfinished(run)
    with (run.root / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not Path("/proc/locks").exists():
            pytest.skip("this system does not tell who holds a lock")
        found = listed(run)
    assert (found.state, found.stage) == ("running", "evaluate")
    assert listed(run).state == "stopped"


def test_the_stage_of_several_trainings_is_the_first_that_one_lacks(tmp_path: Path) -> None:
    run = build_run(tmp_path / "runs" / "run", SMALL)
    text = run.config.read_text("utf-8")
    run.config.write_text(text.replace('"seeds": 1', '"seeds": 2'), "utf-8")
    assert listed(run).stage == "train"


def lost_results(run: RunDir) -> None:
    run.results.unlink()


def broken_results(run: RunDir) -> None:
    run.results.write_text("{")


def other_settings(run: RunDir) -> None:
    run.config.write_text(run.config.read_text("utf-8").replace('"r": 32', '"r": 64'), "utf-8")


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        (lost_results, "stopped", "no results.json"),
        (broken_results, "damaged", "results.json is not JSON"),
        (other_settings, "stopped", "lora.r is 32 in its marker and 64 in config.json"),
    ],
)
def test_a_run_that_contradicts_itself_has_no_verdict(
    run: RunDir, change: Callable[[RunDir], None], state: str, reason: str
) -> None:
    change(run)
    found = listed(run)
    assert (found.state, found.verdict) == (state, "")
    assert reason in found.reason


def test_a_run_of_an_earlier_version_is_read_from_its_results() -> None:
    found = {one.name: one for one in list_runs(ROOT / "tests" / "data")}
    assert {one.state for one in found.values()} == {"done"}
    assert all(one.verdict and one.accuracy_after for one in found.values())


# ---------------------------------------------------------------- the list


def test_the_newest_is_first_and_a_run_without_a_date_last() -> None:
    text = "\n".join(table(list_runs(ROOT / "tests" / "data"), None))
    assert text.index("run-0.2.0") < text.index("run-0.1.0")


def one(name: str = "run", **changes: object) -> ListedRun:
    return replace(
        ListedRun(name, "done", "", "", "better", 0.342, 0.778, "2026-01-02T03:04:05+00:00"),
        **changes,  # type: ignore[arg-type]
    )


def test_a_line_reads_the_state_the_verdict_and_both_accuracies() -> None:
    failed = one("other", state="failed", stage="train", verdict="", accuracy_after=None)
    assert table([one(), failed], None) == [
        "run    state            verdict  accuracy       started (UTC)",
        "run    done             better   34.2 → 77.8 %  2026-01-02 03:04",
        "other  failed at train                          2026-01-02 03:04",
    ]


def test_a_long_name_is_shortened_to_fit_the_terminal() -> None:
    lines = table([one("team/" + "x" * 200 + "/nightly")], 80)
    assert {len(line) for line in lines} <= set(range(81))
    assert lines[1].startswith("team/xx")
    assert "/nightly  done" in lines[1]


def test_a_name_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in table([one("\x1b[2Jrun")], None)[1]


def test_nothing_heavy_is_imported_for_runs_with_figures(run: RunDir) -> None:
    code = (
        "import sys; from pathlib import Path; from nlijob.run_list import list_runs\n"
        "found = list_runs(Path(sys.argv[1]))\n"
        "print(found[0].state, sorted({'numpy', 'scipy', 'matplotlib', 'jinja2'} & {*sys.modules}))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(run.root.parent)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == "done []"


# ---------------------------------------------------------------- the command


def test_the_command_prints_a_line_for_each_run(run: RunDir) -> None:
    shown = CliRunner().invoke(command, [str(run.root.parent)], standalone_mode=False)
    head, line = shown.output.splitlines()
    assert head.split()[:2] == ["run", "state"]
    assert line.split()[:3] == ["run", "done", "better"]


def test_the_command_prints_json_for_programs(run: RunDir) -> None:
    shown = CliRunner().invoke(command, ["--json", str(run.root.parent)], standalone_mode=False)
    (found,) = json.loads(shown.output)
    assert (found["name"], found["state"], found["verdict"]) == ("run", "done", "better")


def test_a_folder_without_runs_is_an_error_that_says_so(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cases = {
        tmp_path / "empty": "holds no runs",
        tmp_path / "nowhere": "no such folder",
        run.root: "is a run itself",
    }
    for folder, message in cases.items():
        with pytest.raises(NotAvailableError, match=message):
            CliRunner().invoke(
                command, [str(folder)], standalone_mode=False, catch_exceptions=False
            )
