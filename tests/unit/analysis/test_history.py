"""Runs over time: which are compared, and when the newest one counts as worse."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from nlijob.analysis.figures import run_figures
from nlijob.analysis.history import (
    Entry,
    build_history,
    check_newest,
    entry_of,
    index,
    read_entries,
    read_entry,
)
from nlijob.analysis.outcome import build_results
from nlijob.config import MachineConfig
from nlijob.records.job import WorkerOutcome
from nlijob.records.outcome import Results
from nlijob.records.serialization import dump, to_json
from nlijob.rundir import RunDir, epoch_marker, write_record
from nlijob.stages import STAGE_NAMES
from tests.synthetic import Spec, build_run, finish
from tests.unit.report.view.outcomes import outcome


def summary(folder: str, results: Results) -> Entry:
    """The run as a list of runs knows it."""
    return entry_of(folder, run_figures(results))


DAY = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


def entry(day: int, wrong: Sequence[int] = (), series: str = "s", rows: int = 100) -> Entry:
    """A finished run of that day that labels these test rows incorrectly."""
    made = summary(f"run-{day}", outcome(Spec()))
    assert made.figures is not None
    accuracy = 1 - len(wrong) / rows
    return replace(
        made,
        started=DAY + datetime.timedelta(days=day),
        series=series,
        wrong=tuple(wrong),
        rows=tuple(range(rows)),
        premises=(),
        figures=replace(made.figures, tuned_accuracy=accuracy, test_rows=rows),
    )


def finished(root: Path, spec: Spec | None = None) -> RunDir:
    run = build_run(root, spec)
    finish(run)
    return run


# ---------------------------------------------------------------- series


def series_of(spec: Spec) -> str:
    return summary("x", outcome(spec)).series


@pytest.mark.parametrize(
    "spec", [Spec(lora_r=64), Spec(epochs=3), Spec(seed=12), Spec(head="sequence-classification")]
)
def test_other_settings_or_test_rows_make_another_series(spec: Spec) -> None:
    assert series_of(spec) != series_of(Spec())


@pytest.mark.parametrize(
    "spec",
    [
        Spec(training_seed=5),
        Spec(recipe="nightly.toml"),
        Spec(created_at="2026-03-04T05:06:07+00:00"),
        Spec(word_importance=False),
    ],
)
def test_runs_that_differ_in_irrelevant_settings_make_one_series(spec: Spec) -> None:
    assert series_of(spec) == series_of(Spec())


def test_trainings_weights_kept_further_texts_and_gpus_are_irrelevant_to_a_series() -> None:
    results = outcome(Spec())
    config = results.run.config
    train = replace(config.train, seeds=(42, 43), keep="all")
    asked = replace(config, train=train, forgetting=replace(config.forgetting, texts="own.jsonl"))
    asked = replace(asked, machine=MachineConfig(gpus=2))
    other = replace(results, run=replace(results.run, config=asked))
    assert summary("x", other).series == summary("x", results).series


def test_the_same_texts_at_other_row_numbers_make_another_series() -> None:
    results = outcome(Spec())
    test = results.manifest.splits["test"]
    moved = replace(test, indices=tuple(index + 1 for index in test.indices))
    splits = {**results.manifest.splits, "test": moved}
    other = replace(results, manifest=replace(results.manifest, splits=splits))
    assert summary("x", other).series != summary("x", results).series


def test_runs_are_newest_first_and_a_series_is_oldest_first() -> None:
    history = build_history([entry(2), entry(0), entry(3, series="t"), entry(1)])
    assert [one.folder for one in history.entries] == ["run-3", "run-2", "run-1", "run-0"]
    assert [[run.folder for run in one.runs] for one in history.series] == [
        ["run-3"],
        ["run-0", "run-1", "run-2"],
    ]


def test_a_series_names_the_settings_that_differ_from_another() -> None:
    made = [summary(str(r), outcome(Spec(lora_r=r))) for r in (32, 64)]
    assert {one.own_settings["lora.r"] for one in build_history(made).series} == {32, 64}
    assert all(set(one.own_settings) == {"lora.r"} for one in build_history(made).series)


def test_a_series_names_what_varies_within_it() -> None:
    first = entry(0)
    second = replace(entry(1), packages={"torch": "0"}, train_rows_sha256="other")
    (series,) = build_history([first, second]).series
    assert series.varying == ("training rows", "package versions")


# ---------------------------------------------------------------- the newest run


def test_a_first_run_has_no_check() -> None:
    assert check_newest([entry(0)]) == ()


def test_the_newest_run_is_compared_with_the_one_before_as_statsmodels_does() -> None:
    (check,) = check_newest([entry(0, range(5)), entry(1, range(2, 20))])
    cells = [[80, 15], [2, 3]]
    assert (check.difference.gained, check.difference.lost) == (2, 15)
    assert check.p == pytest.approx(mcnemar(cells, exact=True).pvalue)
    assert check.against == "the run before"
    assert check.is_below


def test_from_four_runs_on_the_median_run_is_compared_too_and_p_adjusted() -> None:
    wrong = [range(10), range(12), range(30), range(14, 40)]
    before, median = check_newest([entry(day, rows) for day, rows in enumerate(wrong)])
    assert (before.folder, median.folder) == ("run-2", "run-1")
    plain = [before.difference.mcnemar_p, median.difference.mcnemar_p]
    assert [before.p, median.p] == pytest.approx(list(multipletests(plain, method="holm")[1]))


def test_a_median_run_that_is_the_run_before_is_compared_once() -> None:
    runs = [entry(0, range(3)), entry(1, range(9)), entry(2, range(6)), entry(3, range(8))]
    (check,) = check_newest(runs)
    assert (check.folder, check.p) == ("run-2", check.difference.mcnemar_p)


def test_the_later_of_equal_median_runs_is_used() -> None:
    runs = [entry(day, range(5)) for day in range(4)]
    assert [check.folder for check in check_newest(runs)] == ["run-2"]


def test_a_small_fall_is_not_reported() -> None:
    (check,) = check_newest([entry(0, range(5)), entry(1, range(8))])
    assert check.difference.difference < 0
    assert not check.is_below


def test_a_rise_is_not_reported() -> None:
    (check,) = check_newest([entry(0, range(20)), entry(1, ())])
    assert check.p < 0.05
    assert not check.is_below


# ---------------------------------------------------------------- reading


def test_a_finished_run_is_read_from_its_results_alone(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    results = run.results.read_bytes()
    alone = RunDir(tmp_path / "alone")
    alone.root.mkdir()
    alone.results.write_bytes(results)
    made, bare = read_entry(run.root, "run"), read_entry(alone.root, "alone")
    assert made.figures == bare.figures
    assert made.state == "finished"
    assert len(made.wrong) == 98 - outcome(Spec()).tuned.correct


def test_a_folder_without_a_run_is_counted_not_listed(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").touch()
    finished(tmp_path / "run")
    entries, found = read_entries(tmp_path)
    assert [one.folder for one in entries] == ["run"]
    assert found.others == 1


def damaged(run: RunDir) -> None:
    run.results.write_text(run.results.read_text()[:1000])


def not_text(run: RunDir) -> None:
    run.results.write_bytes(b"\xff\xfe{}")


def nested(run: RunDir) -> None:
    run.results.write_text("[" * 200_000)


def a_folder(run: RunDir) -> None:
    run.results.unlink()
    run.results.mkdir()


def self_contradicting(run: RunDir) -> None:
    results = build_results(run)
    tuned = replace(results.tuned, correct=results.tuned.correct - 1)
    write_record(run.results, replace(results, tuned=tuned))


def older(run: RunDir) -> None:
    write_record(run.results, replace(build_results(run), format_version=1))


def of_other_keys(run: RunDir) -> None:
    run.results.write_text('{"run": {"nlijob_version": "9.9"}, "figures": 3}')


def no_object(run: RunDir) -> None:
    run.results.write_text("[]")


def unfinished(run: RunDir) -> None:
    run.results.unlink()
    for stage in (*STAGE_NAMES[1:], *map(epoch_marker, range(2, 6))):
        run.unmark(stage)
    write_record(run.worker_outcome, WorkerOutcome(5, "out of memory", ""))


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        (damaged, "damaged", "results.json is not JSON"),
        (not_text, "damaged", "not UTF-8"),
        (nested, "damaged", "not JSON"),
        (a_folder, "damaged", "cannot be read"),
        (self_contradicting, "damaged", "contradicts itself"),
        (older, "other version", "nlijob 0.1.0 in record format 1; this version reads 2, 3 and 4"),
        (of_other_keys, "other version", "written by another version (nlijob 9.9)"),
        (no_object, "other version", "written by another version"),
        (unfinished, "unfinished", "complete so far: subset and 1 epoch; its last attempt ended"),
    ],
)
def test_a_run_without_figures_is_listed_with_the_reason(
    tmp_path: Path, change: object, state: str, reason: str
) -> None:
    run = finished(tmp_path / "run")
    assert callable(change)
    change(run)
    (found,), _ = read_entries(tmp_path)
    assert (found.state, found.figures) == (state, None)
    assert reason in found.reason
    assert found.started == datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


def test_an_outcome_with_an_invalid_time_is_damaged(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", Spec(created_at="yesterday"))
    found = read_entry(run.root, "run")
    assert (found.state, found.started) == ("damaged", None)


def test_a_folder_restarted_with_another_configuration_is_unfinished(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    again = build_run(tmp_path / "again", Spec(lora_r=64))
    run.config.write_bytes(again.config.read_bytes())
    found = read_entry(run.root, "run")
    assert (found.state, found.figures) == ("unfinished", None)
    assert found.reason == "train: lora.r is 32 in its marker and 64 in config.json"


def test_a_run_with_a_stage_of_other_inputs_is_unfinished(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    select = run.read_marker("select")
    assert select is not None
    assert select.inputs is not None
    run.mark_complete("select", replace(select.inputs, follows={"train": "x"}), [run.selection])
    found = read_entry(run.root, "run")
    assert found.state == "unfinished"
    assert found.reason == "select was made from another train than the one in the folder"


def test_a_run_whose_figures_were_edited_is_damaged(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    text = run.results.read_text("utf-8")
    run.results.write_text(text.replace('"gain": 0.', '"gain": 9.'), "utf-8")
    found = read_entry(run.root, "run")
    assert (found.state, found.reason) == (
        "damaged",
        "results.json has changed since it was written",
    )


def test_a_run_without_a_time_is_listed_last() -> None:
    nameless = replace(entry(9), state="damaged", started=None, figures=None)
    assert build_history([nameless, entry(0)]).entries[-1] == nameless


def test_the_document_holds_every_run_and_can_be_written() -> None:
    broken = replace(entry(3), state="damaged", figures=None, reason="torn")
    document = index(build_history([entry(0), broken, entry(1, range(20)), entry(2)]))
    assert [run.folder for run in document.runs] == ["run-3", "run-2", "run-1", "run-0"]
    assert [one.runs for one in document.series] == [("run-0", "run-1", "run-2")]
    assert to_json(document)["kind"] == "nlijob index"
    assert dump(document)


def test_a_series_is_below_where_its_newest_run_is() -> None:
    (series,) = build_history([entry(0, range(3)), entry(1, range(30))]).series
    assert series.is_below


# ---------------------------------------------------------------- premises


def test_a_fall_on_the_rows_of_few_premises_is_not_significant() -> None:
    premises = [index // 4 for index in range(100)]
    runs = [replace(one, premises=premises) for one in (entry(0), entry(1, wrong=range(16)))]
    (check,) = check_newest(runs)
    assert (check.difference.premises, check.p) == (25, 0.125)
    assert not check.is_below
    (by_row,) = check_newest([entry(0), entry(1, wrong=range(16))])
    assert by_row.is_below


def test_premises_that_one_of_two_runs_does_not_know_are_those_of_the_other() -> None:
    known = replace(entry(0), premises=[index // 4 for index in range(100)])
    (check,) = check_newest([known, entry(1, wrong=range(16))])
    assert check.difference.premises == 25


def test_the_premises_of_a_run_are_read_from_its_results() -> None:
    results = outcome(Spec())
    made = summary("run", results)
    assert results.test_premises is not None
    assert [*made.premises] == [*results.test_premises.numbers]
    assert [*made.rows] == [*results.manifest.splits["test"].indices]
