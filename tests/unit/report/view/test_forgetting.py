"""The section on the loss on general text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nlijob.analysis.outcome import build_results
from nlijob.config import ForgettingConfig
from nlijob.records.forgetting import LossDifference, TaskChange, TrialForgetting
from nlijob.records.intervals import Interval
from nlijob.records.outcome import Results
from nlijob.report.model_card import model_card
from nlijob.report.plots import forgetting_plots
from nlijob.report.summary_markdown import summary_markdown
from nlijob.report.view.forgetting import forgetting_section
from nlijob.report.view.parts import Table
from tests.synthetic import Spec, build_run


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return build_results(build_run(tmp_path_factory.mktemp("run"), Spec(forgets=0.4, rows=14)))


@pytest.fixture(scope="module")
def unmeasured(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return build_results(build_run(tmp_path_factory.mktemp("run"), Spec(forgets=None, rows=14)))


def cells(table: Table, name: str) -> tuple[str, ...]:
    return next(row.cells[1:] for row in table.rows if row.cells[0] == name)


def test_loss_and_accuracy_stand_side_by_side(forgetful: Results) -> None:
    table = forgetting_section(forgetful).table
    before, after, change, bounds, p = cells(table, "loss on general text, nats a token")
    assert float(after) - float(before) == pytest.approx(float(change), abs=0.0011)  # rounded
    assert change.startswith("+0.")
    assert bounds.startswith("+0.")
    assert "p" in p
    assert cells(table, "accuracy on the test rows")[2].endswith(" points")


def test_what_was_forgotten_is_a_warning_and_stands_in_the_card(forgetful: Results) -> None:
    (warning,) = [one for one in forgetful.warnings if one.code == "forgotten"]
    assert warning.text in model_card(forgetful)
    assert summary_markdown(forgetful).count("general texts") == 1


def test_texts_whose_loss_rose_most_are_shown_in_part(forgetful: Results) -> None:
    view = forgetting_section(forgetful)
    assert view.worst_title == "The 5 texts whose loss rose most"
    assert all(len(row.cells[0]) < 120 for row in view.worst.rows)


def test_the_chart_has_a_point_for_the_training(forgetful: Results) -> None:
    assert "gain in accuracy" in forgetting_plots(forgetful)["forgetting"].svg


def test_each_training_has_a_row(forgetful: Results) -> None:
    assert forgetful.forgetting is not None
    change = LossDifference(0.2, Interval(0.1, 0.3), 0.01)
    trials = tuple(TrialForgetting(f"seed-{at}", 2.5, change) for at in (42, 43))
    several = replace(forgetful.forgetting, trials=trials, mean_change=change)
    view = forgetting_section(replace(forgetful, forgetting=several))
    assert [row.cells[0] for row in view.trials.rows] == ["seed-42", "seed-43"]
    assert "2 trainings" in view.trials_lead


def test_without_figures_it_says_not_measured_and_why(unmeasured: Results) -> None:
    config = unmeasured.run.config
    off = replace(config, forgetting=ForgettingConfig(""))
    head = replace(config, model=replace(config.model, head="sequence-classification"))
    reasons = {
        "it was turned off": off,
        "a classification head predicts labels": head,
        "no record of it": config,
    }
    for reason, one in reasons.items():
        view = forgetting_section(replace(unmeasured, run=replace(unmeasured.run, config=one)))
        assert not view.measured
        assert "not measured" in view.lead
        assert reason in view.lead
    assert forgetting_plots(unmeasured) == {}
    assert "was not measured" in model_card(unmeasured)
    assert "general text" not in summary_markdown(unmeasured)


def test_hostile_texts_are_made_visible(tmp_path: Path) -> None:
    hostile = build_results(build_run(tmp_path, Spec(hostile=True, forgets=0.4, rows=14)))
    shown = [cell for row in forgetting_section(hostile).worst.rows for cell in row.cells]
    assert not any("\u0001" in cell for cell in shown)


def test_tasks_stand_in_a_table_with_and_without_general_text(
    forgetful: Results, unmeasured: Results
) -> None:
    change = TaskChange(
        task="arc_easy",
        metric="acc",
        documents=1200,
        higher_is_better=True,
        base=0.61234,
        base_stderr=0.0141,
        tuned=0.5,
        tuned_stderr=None,
        difference=-0.11234,
        interval=Interval(-0.15, -0.07),
        p=0.001,
        adjusted_p=0.04,
    )
    for results in (forgetful, unmeasured):
        view = forgetting_section(replace(results, tasks=(change,)))
        assert [row.cells for row in view.tasks.rows] == [
            (
                *("arc_easy: acc", "1,200", "0.612 ± 0.014", "0.500", "−0.112"),
                *("−0.150 to −0.070", "p\u00a0=\u00a00.040"),
            )
        ]
    assert forgetting_section(forgetful).tasks is None
