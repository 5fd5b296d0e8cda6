"""The whole job on the demo recipe at reduced size, through the real accelerate launch."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from nlijob import records
from nlijob.analysis.run_figures import read_run_figures
from nlijob.records.job import Generation, Prediction, ScoreResult, Timing, TrainStep
from nlijob.records.outcome import Results
from nlijob.rundir import RunDir
from nlijob.stages import STAGE_NAMES
from tests import jobs
from tests.in_process import Shown

FILES = (
    *("config.json", "environment.json", "prompt.json", "selection.json"),
    *("timings.jsonl", "hardware.jsonl", "results.json", "report.html", "summary.md"),
    "figures.json",
    *(f"subset/{n}" for n in ("manifest.json", "train.jsonl", "validation.jsonl", "test.jsonl")),
    "elsewhere/manifest.json",
    *(f"baseline/{n}" for n in ("result.json", "predictions.jsonl")),
    *(f"train/{n}" for n in ("log.jsonl", "result.json")),
    *(f"train/epoch-{n}/adapter_model.safetensors" for n in (1, 2)),
    *(f"evaluate/{n}" for n in ("result.json", "predictions.jsonl", "generations.jsonl")),
    *(f"evaluate/{n}" for n in ("blank_premise.jsonl", "occlusion.jsonl")),
    "baseline/few_shot.jsonl",
    *(f"adapter/{n}" for n in ("adapter_model.safetensors", "adapter_config.json", "README.md")),
)


Command = Callable[..., Shown]


@pytest.fixture
def run_here(copied: RunDir, nlijob_here: Command) -> Command:
    """Calls `run` on the copied run, in this process, with further options."""
    where = ("--runs-dir", copied.root.parent, "--run-id", copied.root.name)
    return lambda *options: nlijob_here("run", *where, *jobs.SMALL_DEMO, *options)


@pytest.fixture
def outcome(job: RunDir) -> Results:
    return jobs.results(job)


def test_every_file_of_the_interface_is_there(job: RunDir) -> None:
    assert [name for name in FILES if not (job.root / name).is_file()] == []


def test_a_list_of_runs_knows_a_finished_job_by_its_figures(job: RunDir) -> None:
    known = read_run_figures(job)
    assert known is not None
    assert known.figures.tuned_accuracy == jobs.results(job).tuned.accuracy


def test_stages_run_in_order_and_the_reports_path_comes_last(
    finished: tuple[RunDir, subprocess.CompletedProcess[str]],
) -> None:
    job, done = finished
    stages = re.findall(rf"^\[\d/{len(STAGE_NAMES)}\] (\w+)", done.stderr, re.M)
    assert list(dict.fromkeys(stages)) == [*STAGE_NAMES]
    accuracy, *notes, report = done.stdout.splitlines()
    assert accuracy.startswith("Test accuracy ")
    assert all(note.startswith("Note: ") for note in notes)
    assert report == f"Report: {job.report}"


def test_the_model_is_loaded_once(job: RunDir) -> None:
    timings = list(records.read_lines(Timing, job.timings))
    assert [t.kind for t in timings if t.stage == "load"].count("stage") == 1


def test_accuracies_are_those_of_the_predictions(job: RunDir, outcome: Results) -> None:
    for path, metrics in (
        (job.baseline_predictions, outcome.base),
        (job.evaluate_predictions, outcome.tuned),
    ):
        test = [p for p in records.read_lines(Prediction, path) if p.split == "test"]
        assert metrics.rows == len(test)
        assert metrics.correct == sum(p.predicted == p.label for p in test)


def test_the_saved_adapter_scores_as_the_epoch_did_in_training(
    job: RunDir, outcome: Results
) -> None:
    epoch = outcome.epochs[outcome.selection.epoch - 1]
    tuned = records.read(ScoreResult, job.evaluate_result).scores
    assert tuned["validation"].correct == epoch.validation.correct
    assert epoch.test is not None
    assert tuned["test"].correct == epoch.test.correct
    assert tuned["test"].loss == pytest.approx(epoch.test.loss, rel=1e-6)


def test_the_selected_epoch_is_the_best_on_validation(outcome: Results) -> None:
    best = max(e.validation.correct for e in outcome.epochs)
    assert outcome.epochs[outcome.selection.epoch - 1].validation.correct == best


def test_every_training_step_is_logged(job: RunDir, outcome: Results) -> None:
    steps = list(records.read_lines(TrainStep, job.train_log))
    assert [step.step for step in steps] == list(range(1, len(steps) + 1))
    assert len(steps) == sum(epoch.steps for epoch in outcome.epochs)


def test_free_output_is_there_for_the_shown_cases_only(job: RunDir, outcome: Results) -> None:
    groups = outcome.cases
    shown = {
        case.index
        for cases in (groups.shown_corrected, groups.shown_still_wrong, groups.shown_newly_broken)
        for case in cases
    }
    written = {g.index for g in records.read_lines(Generation, job.generations)}
    assert written == shown


def test_every_shown_case_has_the_importance_of_each_of_its_words(outcome: Results) -> None:
    groups = outcome.cases
    for case in (
        *groups.shown_corrected,
        *groups.shown_still_wrong,
        *groups.shown_newly_broken,
    ):
        texts = {"premise": case.premise, "hypothesis": case.hypothesis}
        words = [texts[word.text][word.start : word.end] for word in case.word_importance]
        assert words == re.findall(r"\w+", f"{case.premise} {case.hypothesis}")
        assert any(word.base for word in case.word_importance)
        assert any(word.tuned for word in case.word_importance)


def test_controls_are_of_the_models_they_name(job: RunDir, outcome: Results) -> None:
    assert [c.kind for c in outcome.controls] == ["majority class", "few-shot", "blank premise"]
    base, few_shot = (
        [p for p in records.read_lines(Prediction, path) if p.split == "test"]
        for path in (job.baseline_predictions, job.few_shot_predictions)
    )
    assert all(long.tokens > short.tokens for short, long in zip(base, few_shot, strict=True))
    tuned, blank = (
        [p for p in records.read_lines(Prediction, path) if p.split == "test"]
        for path in (job.evaluate_predictions, job.blank_premise_predictions)
    )
    assert all(short.tokens < long.tokens for short, long in zip(blank, tuned, strict=True))


def test_general_texts_are_measured_before_and_after(outcome: Results) -> None:
    found = outcome.forgetting
    assert found is not None
    assert (found.source, found.texts, found.left_out) == ("demo", 60, 0)
    # the demo's model has read such texts: far below log(2048), the loss of a guess
    assert 0 < found.base_loss < 2
    assert found.tuned_loss != found.base_loss


def test_results_fit_the_published_schema(job: RunDir) -> None:
    schema = json.loads((jobs.ROOT / "docs" / "results.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(job.results.read_text(encoding="utf-8")), schema)


def test_the_summary_says_what_the_terminal_says(job: RunDir, outcome: Results) -> None:
    summary = job.summary.read_text(encoding="utf-8")
    assert f"{100 * outcome.tuned.accuracy:.1f} %" in summary
    assert summary.count("\n- ") == len(outcome.warnings)


def test_the_report_asks_for_nothing_from_anywhere(job: RunDir) -> None:
    page = job.report.read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert "@import" not in page
    assert "Content-Security-Policy" in page


def test_the_report_says_that_demo_figures_are_about_the_demo(job: RunDir) -> None:
    assert "demo" in job.report.read_text(encoding="utf-8").lower()


def test_a_finished_job_is_not_done_again_and_changes_nothing(
    copied: RunDir, run_here: Command
) -> None:
    before = {p: p.stat().st_mtime_ns for p in copied.root.rglob("*") if p.is_file()}
    done = run_here()
    assert done.err.count("complete, skipped") == len(STAGE_NAMES)
    assert "accelerate" not in done.err
    after = {p: p.stat().st_mtime_ns for p in copied.root.rglob("*") if p.is_file()}
    assert {p.name for p in after if after[p] != before.get(p)} <= {".lock", "console.txt"}


def test_a_changed_report_option_renders_again_and_trains_nothing(
    copied: RunDir, run_here: Command
) -> None:
    done = run_here("--set", "report.title='Nightly'")
    assert "report    complete" not in done.err
    assert done.err.count("complete, skipped") == len(STAGE_NAMES) - 1
    assert "Nightly" in copied.report.read_text(encoding="utf-8")


def test_a_quiet_job_prints_its_result_only(copied: RunDir, run_here: Command) -> None:
    done = run_here("--quiet")
    assert done.err == ""
    assert done.out.splitlines()[-1] == f"Report: {copied.report}"


def test_a_gate_that_is_missed_ends_with_3_and_a_report(copied: RunDir, run_here: Command) -> None:
    done = run_here("--min-accuracy", "1.0")
    assert done.code == 3
    assert "error:" in done.err
    assert copied.report.is_file()


def test_the_report_renders_again_from_the_records(copied: RunDir) -> None:
    copied.report.unlink()
    done = jobs.run("report", copied.root)
    assert done.returncode == 0, done.stderr
    assert copied.report.is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_job_can_be_stopped_while_the_gpu_side_starts(
    tmp_path: Path, number: signal.Signals
) -> None:
    stopped = RunDir(tmp_path / "job")
    with jobs.hearing_hang_ups():
        process = jobs.start(tmp_path, *jobs.SMALL_DEMO)
    jobs.wait_until(stopped.worker_log.exists, process)
    process.send_signal(number)
    process.communicate(timeout=jobs.LIMIT_S)

    assert process.returncode == 75
    assert jobs.processes_of(stopped) == []


@pytest.mark.parametrize("moment", ["worker_log", "worker_task"])
def test_a_killed_parent_leaves_no_process_behind(tmp_path: Path, moment: str) -> None:
    killed = RunDir(tmp_path / "job")
    process = jobs.start(tmp_path, *jobs.SMALL_DEMO)
    jobs.wait_until(getattr(killed, moment).exists, process)
    process.kill()
    process.wait()
    assert jobs.no_process_left(killed)


def test_records_are_strict_json(job: RunDir) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    for path in job.root.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
