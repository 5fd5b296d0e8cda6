"""A run folder with several trainings: all of them are read, told and compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nlijob.analysis.comparison import labelled_rows
from nlijob.analysis.outcome import build_results
from nlijob.analysis.runs import (
    NoOutcomeError,
    read_outcome,
    read_test_rows,
    read_trial_rows,
    trial_predictions,
)
from nlijob.config import ReportConfig
from nlijob.records.job import Choice, Prediction
from nlijob.records.outcome import Results
from nlijob.records.serialization import read, read_lines
from nlijob.report.comparison import write_comparison
from nlijob.rundir import RunDir, write_records
from nlijob.trials import trials_of
from tests.several import build_several, finish_several
from tests.synthetic import Spec, build_run, finish

SEEDS = (42, 43, 44)
SMALL = Spec(rows=40, train_rows=40, epochs=2, report=ReportConfig(min_accuracy=1.0))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return build_several(tmp_path_factory.mktemp("several"), SMALL, SEEDS)


@pytest.fixture(scope="module")
def results(run: RunDir) -> Results:
    results = build_results(run)
    finish_several(run, results)
    return results


def test_results_tell_of_all_trainings_and_of_the_kept_one(run: RunDir, results: Results) -> None:
    trials = results.trials
    assert trials is not None
    assert [(one.name, one.seed) for one in trials.trials] == [(f"seed-{s}", s) for s in SEEDS]
    assert trials.kept == read(Choice, run.choice).trial
    (kept,) = (one for one in trials.trials if one.name == trials.kept)
    assert (kept.accuracy, kept.change.difference) == (results.tuned.accuracy, results.gain)
    assert (kept.epochs, kept.selection) == (results.epochs, results.selection)
    assert "few-trainings" in {one.code for one in results.warnings}


def test_gates_of_a_run_with_several_trainings_judge_their_mean(results: Results) -> None:
    assert results.trials is not None
    (failure,) = results.gates.failures
    assert failure.figures["judged"] == results.trials.accuracy.mean != results.tuned.accuracy


def test_cases_tell_how_many_trainings_label_the_row_correctly(
    run: RunDir, results: Results
) -> None:
    answers = trial_predictions(run, results).values()
    right = [row.index for rows in answers for row in rows if row.is_right]
    right_in = {row.index: right.count(row.index) for rows in answers for row in rows}
    groups = results.cases
    rows = (*groups.rows_corrected, *groups.rows_still_wrong, *groups.rows_newly_broken)
    assert {row.index: row.right_in for row in rows} == {r.index: right_in[r.index] for r in rows}
    shown = [right_in[case.index] for case in groups.shown_still_wrong]
    assert shown == sorted(shown)
    assert [case.right_in for case in groups.shown_still_wrong] == shown


def test_a_run_with_one_training_tells_of_none(tmp_path: Path) -> None:
    alone = build_run(tmp_path, SMALL)
    results = build_results(alone)
    assert results.trials is None
    assert not any("training" in one.code and "far" in one.code for one in results.warnings)
    assert read_trial_rows(alone, results) == []


def test_the_predictions_of_all_trainings_are_read_by_name(run: RunDir, results: Results) -> None:
    assert read_outcome(run) == results
    found = trial_predictions(run, results)
    assert list(found) == [f"seed-{seed}" for seed in SEEDS]
    examples, base, tuned = read_test_rows(run, results)
    trials = read_trial_rows(run, results)
    rows = labelled_rows(results, examples, base, tuned, trials)
    assert results.trials is not None
    counts = [sum(row.rights[place] for row in rows) for place in range(len(SEEDS))]
    assert counts == [one.correct for one in results.trials.trials]
    kept = list(found).index(results.trials.kept)
    assert all(row.rights[kept] == row.is_right for row in rows)


def test_predictions_that_do_not_match_results_json_are_refused(
    run: RunDir, results: Results
) -> None:
    assert results.trials is not None
    trial = next(t for t in trials_of(results.run.config) if t.name != results.trials.kept)
    path = run.of_trial(trial).evaluate_predictions
    before = path.read_bytes()
    rows = list(read_lines(Prediction, path))
    first = rows[0]
    turned = replace(
        first,
        predicted=(first.predicted + 1) % 3,
        probabilities=(first.probabilities[2], *first.probabilities[:2]),
    )
    try:
        write_records(path, [turned, *rows[1:]])
        with pytest.raises(NoOutcomeError, match=f"{trial.name} do not match"):
            read_trial_rows(run, results)
        write_records(path, rows[1:])
        with pytest.raises(NoOutcomeError, match=f"{trial.name} was scored on other test rows"):
            read_trial_rows(run, results)
        path.unlink()
        with pytest.raises(NoOutcomeError, match=f"{trial.name}/evaluate/predictions.jsonl cannot"):
            read_trial_rows(run, results)
        path.write_text("{\n{\n")
        with pytest.raises(NoOutcomeError, match="the rows cannot be read"):
            read_trial_rows(run, results)
    finally:
        path.write_bytes(before)


def test_compare_reads_the_trainings_of_a_run(
    run: RunDir, results: Results, tmp_path: Path
) -> None:
    assert results.trials is not None
    other = build_run(tmp_path / "other", replace(SMALL, run_id="other"))
    finish(other)
    page, document = write_comparison([run.root, other.root], tmp_path / "compare.html")
    assert "the mean of 3 trainings" in page.read_text().replace("\u00a0", " ")
    assert '"reference_trainings": 3' in document.read_text()
