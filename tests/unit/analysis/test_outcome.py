"""The whole outcome of a synthetic run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nlijob import records
from nlijob.analysis.outcome import build_results
from nlijob.analysis.runs import read_test_rows
from nlijob.records.job import Example, PromptRecord
from nlijob.records.outcome import Results
from nlijob.records.serialization import read_all
from nlijob.rundir import RunDir, write_record, write_records
from tests.synthetic import Spec, build_run, mark_stages


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return build_run(tmp_path_factory.mktemp("run"), Spec(resumed=True))


@pytest.fixture(scope="module")
def results(run: RunDir) -> Results:
    return build_results(run)


def test_results_survive_the_round_trip_through_json(results: Results) -> None:
    assert records.from_json(Results, records.to_json(results)) == results


def test_groups_add_up_to_the_test_rows_and_to_both_accuracies(results: Results) -> None:
    cases = results.cases
    broken, corrected = cases.newly_broken, cases.corrected
    assert cases.both_right + broken == results.base.correct
    assert cases.both_right + corrected == results.tuned.correct
    assert results.base.correct + corrected + cases.still_wrong == results.base.rows


def test_repeated_premises_are_the_units_of_intervals_and_tests(
    run: RunDir, results: Results
) -> None:
    examples = read_all(Example, run.subset("test"))
    groups = results.test_premises
    assert groups is not None
    assert groups.premises == len({example.premise for example in examples}) < groups.rows
    assert results.bootstrap.premises == groups.premises
    assert {one.epoch for one in results.validation_intervals} == {0, 1, 2, 3, 4, 5}


def test_gain_is_exact_in_rows(results: Results) -> None:
    assert results.gain == (results.tuned.correct - results.base.correct) / results.tuned.rows
    assert results.gain_interval.low < results.gain < results.gain_interval.high


def test_tuned_figures_are_those_of_the_selected_epoch(results: Results) -> None:
    chosen = next(e for e in results.epochs if e.epoch == results.selection.epoch)
    assert chosen.test is not None
    assert results.tuned.correct == chosen.test.correct


def test_a_resumed_run_counts_both_attempts(results: Results) -> None:
    assert results.attempts == 2
    (train,) = (stage for stage in results.stages if stage.stage == "train")
    assert {f"epoch {number}" for number in range(1, 6)} <= train.parts.keys()


def test_energy_excludes_the_pause_between_attempts(results: Results) -> None:
    (gpu,) = results.resources.gpus
    assert gpu.energy_j is not None
    assert gpu.mean_power_w is not None
    assert gpu.energy_j == pytest.approx(gpu.mean_power_w * results.total_s, rel=0.05)


def test_figures_that_a_run_lacks_are_none(tmp_path: Path) -> None:
    spec = Spec(gpu=False, samples=False, generations=False, test_each_epoch=False)
    results = build_results(build_run(tmp_path, spec))
    assert results.resources.gpus == ()
    assert results.resources.peak_allocated_bytes is None
    assert results.resources.mean_cpu_load is None
    assert all(epoch.test is None for epoch in results.epochs)
    assert all(case.base_text is None for case in results.cases.shown_corrected)


def test_a_run_without_base_validation_has_none(tmp_path: Path) -> None:
    assert build_results(build_run(tmp_path, Spec(base_validation=False))).base_validation is None


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    run = build_run(tmp_path)
    run.evaluate_predictions.unlink()
    with pytest.raises(FileNotFoundError):
        build_results(run)


def test_rows_that_were_left_out_as_too_long_are_counted_and_told(tmp_path: Path) -> None:
    run = build_run(tmp_path, Spec(samples=False))
    examples = read_all(Example, run.subset("test"))
    long = replace(examples[0], index=10**6, premise="a " * 5000)
    write_records(run.subset("test"), [*examples, long])
    prompt = records.read(PromptRecord, run.prompt)
    write_record(run.prompt, replace(prompt, dropped={"test": (long.index,)}))
    outcome = build_results(run)
    assert outcome.tuned.rows == len(examples)
    (told,) = (warning for warning in outcome.warnings if warning.code == "rows-too-long")
    assert told.figures == {"test": 1, "max_length": 2048}
    assert told.text.startswith("Left out as longer than 2,048 tokens: 1 of 98 test rows")
    write_record(run.results, outcome)
    mark_stages(run)
    kept, *_ = read_test_rows(run, outcome)
    assert kept == examples
