"""The section on further test sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nlijob.analysis.comparison import ComparedRun, compare
from nlijob.analysis.outcome import build_results
from nlijob.analysis.transfer import measure_transfer
from nlijob.analysis.wording import percent
from nlijob.config import load_config
from nlijob.records.outcome import Results
from nlijob.records.transfer import TransferManifest
from nlijob.report.model_card import model_card
from nlijob.report.plots import transfer_plots
from nlijob.report.sections import Outcome
from nlijob.report.summary_markdown import summary_markdown
from nlijob.report.templates import render_page
from nlijob.report.view.compare import compare_page
from nlijob.report.view.page import build_page
from nlijob.report.view.parts import View
from nlijob.report.view.transfer import own_change, transfer_section
from nlijob.rundir import RunDir
from tests.synthetic import Spec, build_run
from tests.transfer_sets import TWO, MadeSet, add_sets, config_with, write_sets
from tests.unit.analysis.test_comparison import rights
from tests.unit.report.view.outcomes import outcome

SETS = (
    MadeSet("hans", 60, 30, 31, label_names=TWO, answers=(0, 1, 1), values=("<b>", "x", "y")),
    MadeSet("far", 80, 20, 60, values=[f"v{i}" for i in range(20)], too_long=5, seen=2),
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A run whose gain carries over to one of two sets."""
    run = build_run(tmp_path_factory.mktemp("sets") / "run", Spec(few_shot=0))
    return build_results(add_sets(run, *SETS))


@pytest.fixture
def hans(results: Results) -> View:
    sets: tuple[View, ...] = transfer_section(results).sets
    return sets[0]


@pytest.fixture
def far(results: Results) -> View:
    sets: tuple[View, ...] = transfer_section(results).sets
    return sets[1]


def test_the_table_has_the_runs_own_rows_and_each_set(results: Results) -> None:
    view = transfer_section(results)
    assert "better beyond chance on 1 of 2" in view.lead
    assert [(one.cells[0], one.cells[1], one.mark) for one in view.table.rows] == [
        ("own test rows", "98", "helped"),
        ("hans", "60", ""),
        ("far", "75", "helped"),
    ]


def test_labels_are_told_where_answers_are_merged(hans: View, far: View) -> None:
    assert "neutral counts as not_entailment and contradiction counts as" in hans.labels
    assert "for the same label were added up, accuracy would be" in hans.labels
    assert far.labels == ""


def test_rows_that_were_left_out_or_seen_are_told(far: View) -> None:
    assert "left out: 5 rows too long for the model" in far.rows
    assert "whole rows: 2.5 % (2 of 80)" in far.seen


def test_values_with_too_few_rows_are_in_a_fold(hans: View, far: View) -> None:
    (heuristic,) = hans.columns
    assert ([one.cells[1] for one in heuristic.table.rows], heuristic.more_title) == (
        ["20", "20", "20"],
        "",
    )
    (many,) = far.columns
    assert (many.table.rows, many.more_title) == ((), "20 values of “heuristic”")


def test_a_gain_that_does_not_carry_over_is_a_note_of_the_first_screen(results: Results) -> None:
    notes = [one.text for one in results.warnings if one.code == "gain-not-elsewhere"]
    (note,) = notes
    assert note.startswith("On hans the gain does not show: +1.7 points on 60 rows")
    assert note in [text.replace("\N{NO-BREAK SPACE}", " ") for text in _first_screen(results)]


def _first_screen(results: Results) -> tuple[str, ...]:
    summary = build_page(Outcome(results)).sections[0].view
    groups = (*summary.cautions.shown, *summary.cautions.more)
    return tuple(text for group in groups for _, text in group.warnings)


def test_the_page_and_its_chart_show_all_sets(results: Results) -> None:
    plots = transfer_plots(results)
    page = render_page("report.html.j2", page=build_page(Outcome(results)), plots=plots)
    assert all(name in plots["transfer"].svg for name in ("own test rows", "hans", "far"))
    assert "heuristic" in page
    assert "<b>" not in page.partition('id="transfer"')[2].partition("</section>")[0]


def test_the_summary_has_a_line_for_each_set(results: Results) -> None:
    lines = summary_markdown(results).splitlines()
    assert [line[:20] for line in lines if line.startswith("- elsewhere")] == [
        "- elsewhere, hans: 5",
        "- elsewhere, far: 26",
    ]


def test_the_model_card_has_both_accuracies_on_each_set(results: Results) -> None:
    card = model_card(results).splitlines()
    found = [line.split(" | ") for line in card if line.startswith("| accuracy elsewhere")]
    assert [line[0] for line in found] == [
        f"| accuracy elsewhere: {one.manifest.name}, {one.rows} rows" for one in results.transfer
    ]
    for line, one in zip(found, results.transfer, strict=True):
        assert line[1].startswith(percent(one.base.accuracy))
        assert line[2].startswith(percent(one.tuned.accuracy))
    assert "elsewhere" not in model_card(outcome(Spec()))


def test_compared_runs_have_a_line_for_each_set_that_any_of_them_has(results: Results) -> None:
    hans, far = results.transfer
    other = replace(far, manifest=_of_rows(far.manifest, "1"))
    runs = [replace(results, transfer=sets) for sets in ((hans, far), (), (other,))]
    compared = [ComparedRun(f"run-{n}", run, tuple(rights("1"))) for n, run in enumerate(runs)]
    found = compare_page(compare(compared), {}, "compare.json", "0.1.0").figures.rows
    lines = {line.cells[0]: line.cells[1:] for line in found if "elsewhere" in line.cells[0]}
    shown = f"{percent(far.base.accuracy)} → {percent(far.tuned.accuracy)} of {far.rows} rows; "
    assert lines["accuracy elsewhere, hans"][1:] == ("not measured", "not measured")
    of_far = lines["accuracy elsewhere, far (not the same rows)"]
    assert of_far[0].startswith(shown)
    assert of_far[1] == "not measured"
    assert of_far[2] == of_far[0]


def _of_rows(manifest: TransferManifest, sha256: str) -> TransferManifest:
    return replace(manifest, rows=replace(manifest.rows, rows_sha256=sha256))


def test_several_trainings_have_a_table_and_their_range(tmp_path: Path) -> None:
    made = MadeSet(tuned=40, others={43: 10, 44: 50})
    run, config = RunDir(tmp_path), config_with(load_config("demo"), made)
    write_sets(run, config, made)
    base = outcome(Spec())
    sets = measure_transfer(run, config, own_change(base))
    (one,) = transfer_section(replace(base, transfer=sets)).sets
    assert "Over 3 trainings the change is +22.2 points on average, from −16.7" in one.trials
    assert "2 made the model better and 1 worse beyond chance" in one.trials
    assert [row.cells[0] for row in one.trainings.rows] == ["seed 42", "seed 43", "seed 44"]


def test_without_a_set_an_example_says_how_to_name_one(tmp_path: Path) -> None:
    view = transfer_section(outcome(Spec()))
    assert (view.sets, transfer_plots(outcome(Spec()))) == ((), {})
    recipe = tmp_path / "more.toml"
    recipe.write_text(f'extends = "demo"\n\n{view.example}\n', encoding="utf-8")
    (named,) = load_config(str(recipe)).transfer
    assert (named.dataset, named.split) == ("DATASET", "test")
