"""Rows are read only from records that match each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nlijob.analysis.figures import wrong_rows
from nlijob.analysis.outcome import build_results
from nlijob.analysis.runs import NoOutcomeError, read_test_rows
from nlijob.run_folders import holds_a_run
from nlijob.rundir import RunDir
from tests.markers import made_from
from tests.synthetic import Spec, build_run, mark_stages


def test_rows_come_with_both_models_answers(tmp_path: Path) -> None:
    run = build_run(tmp_path)
    results = build_results(run)
    examples, base, tuned = read_test_rows(run, results)
    assert len(examples) == len(base) == len(tuned) == 98
    assert {row.index for row in tuned if row.predicted != row.label} == {*wrong_rows(results)}


def without_a_file(run: RunDir) -> None:
    run.evaluate_predictions.unlink()


def of_another_training(run: RunDir) -> None:
    other = build_run(run.root / "other", Spec(training_seed=5, tuned_skill=0.5))
    run.evaluate_predictions.write_bytes(other.evaluate_predictions.read_bytes())


def of_other_rows(run: RunDir) -> None:
    lines = run.subset("test").read_text().splitlines(keepends=True)
    run.subset("test").write_text("".join(lines[:-1]))


def of_other_labels(run: RunDir) -> None:
    first, *rest = run.subset("test").read_text().splitlines()
    example = json.loads(first)
    example["label"] = (example["label"] + 1) % 3
    run.subset("test").write_text("\n".join([json.dumps(example), *rest, ""]))


def torn_inside(run: RunDir) -> None:
    lines = run.baseline_predictions.read_text().splitlines(keepends=True)
    run.baseline_predictions.write_text("".join([lines[0][:20] + "\n", *lines[1:]]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_a_file, "evaluate/predictions.jsonl cannot be read: No such file"),
        (of_another_training, "the predictions do not match results.json"),
        (of_other_rows, "not for the rows in subset/"),
        (of_other_labels, "other gold labels than subset/"),
        (torn_inside, "the rows cannot be read"),
    ],
)
def test_records_that_do_not_match_are_refused(tmp_path: Path, change: object, reason: str) -> None:
    run = build_run(tmp_path)
    results = build_results(run)
    assert callable(change)
    change(run)
    mark_stages(run)
    with pytest.raises(NoOutcomeError) as raised:
        read_test_rows(run, results)
    assert reason in raised.value.reason


def test_rows_of_a_file_that_has_changed_are_refused(tmp_path: Path) -> None:
    run = build_run(tmp_path)
    results = build_results(run)
    content = run.evaluate_predictions.read_bytes()
    run.evaluate_predictions.write_bytes(content.replace(b'"loss": 0.1', b'"loss": 0.2'))
    with pytest.raises(
        NoOutcomeError, match=r"evaluate: evaluate/predictions\.jsonl is missing or"
    ):
        read_test_rows(run, results)


def test_a_folder_holds_a_run_as_soon_as_a_job_wrote_to_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert not holds_a_run(run.root)
    run.mark_complete("subset", made_from("x"), [])
    assert holds_a_run(run.root)
