"""What the page says about a run, before any template prints it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nlijob.analysis.outcome import build_results
from nlijob.records import Results
from nlijob.report.parts import Fact, unbroken, visible
from nlijob.report.view import Page, build_page
from tests.synthetic import Spec, build_run

ResultsOf = Callable[[Spec], Results]


@pytest.fixture(scope="module")
def results_of(tmp_path_factory: pytest.TempPathFactory) -> ResultsOf:
    made: dict[Spec, Results] = {}

    def of(spec: Spec) -> Results:
        if spec not in made:
            made[spec] = build_results(build_run(tmp_path_factory.mktemp("run"), spec))
        return made[spec]

    return of


def page(results: Results) -> Page:
    return build_page(results)


def texts(value: Any) -> Iterator[str]:
    """Every text in a view."""
    if isinstance(value, str):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from texts(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from texts(item)


def fact(facts: tuple[Fact, ...], name: str) -> Fact:
    return next(one for one in facts if one.name == name)


def test_a_clear_gain_is_called_one(results_of: ResultsOf) -> None:
    summary = page(results_of(Spec())).summary
    assert summary.verdict.startswith("Tuning raised test accuracy from")
    assert summary.tone == "better"


def test_a_change_that_may_be_chance_is_not_called_a_gain(results_of: ResultsOf) -> None:
    summary = page(replace(results_of(Spec()), mcnemar_p=0.2)).summary
    assert "cannot be told from no change" in summary.verdict
    assert summary.tone == "unclear"


def test_a_clear_loss_is_called_one(results_of: ResultsOf) -> None:
    summary = page(replace(results_of(Spec()), gain=-0.1, mcnemar_p=0.001)).summary
    assert "lowered" in summary.verdict
    assert summary.tone == "worse"


def test_a_gain_by_giving_one_label_always_is_not_called_a_gain(results_of: ResultsOf) -> None:
    results = results_of(Spec())
    answers = [
        replace(c, predicted=98 if c.name == "neutral" else 0) for c in results.tuned.classes
    ]
    always = replace(results.tuned, classes=tuple(answers))
    summary = page(replace(results, tuned=always)).summary
    assert "the tuned model answers “neutral” for 98 of 98 rows" in summary.verdict
    assert summary.tone == "unclear"


def test_no_change_is_called_no_change(results_of: ResultsOf) -> None:
    summary = page(replace(results_of(Spec()), gain=0.0, mcnemar_p=1.0)).summary
    assert "the same before and after" in summary.verdict


def test_a_run_on_the_cpu_says_so_and_measures_no_gpu(results_of: ResultsOf) -> None:
    made = page(results_of(Spec(gpu=False)))
    assert made.resources.no_gpu == "No GPU: this job ran on the CPU."
    assert fact(made.summary.tiles, "GPU energy").value == "not measured"
    assert fact(made.summary.tiles, "peak memory").note == "RAM of the job; no GPU"


def test_figures_not_measured_never_read_as_zero(results_of: ResultsOf) -> None:
    made = page(results_of(Spec(samples=False)))
    ((_, facts),) = made.resources.gpus
    for name in ("mean load", "highest load", "memory seen by the driver", "mean power", "energy"):
        assert fact(facts, name).value == "not measured"


def test_energy_of_one_gpu_of_two_is_not_passed_off_as_the_whole(results_of: ResultsOf) -> None:
    results = results_of(Spec())
    one = results.resources.gpus[0]
    two = replace(results.resources, gpus=(one, replace(one, energy_j=None)))
    tiles = page(replace(results, resources=two)).summary.tiles
    assert fact(tiles, "GPU energy").value == "not measured"


def test_the_selected_epoch_alone_is_marked(results_of: ResultsOf) -> None:
    results = results_of(Spec())
    marked = [row.cells[0] for row in page(results).epochs.table.rows if row.mark]
    assert marked == [str(results.selection.epoch)]


def test_test_accuracy_by_epoch_is_marked_as_information(results_of: ResultsOf) -> None:
    names = [column.name for column in page(results_of(Spec())).epochs.table.columns]
    assert "test accuracy (information only)" in names


def test_both_totals_are_told_apart(results_of: ResultsOf) -> None:
    parameters = page(results_of(Spec())).parameters
    counts = {row.cells[0]: row.cells[1] for row in parameters.counts.rows}
    assert counts["total, logical"] == "2,800,655,360"
    assert counts["total, packed"] == "1,542,364,160"
    assert "Two totals" in parameters.explanation


def test_a_model_that_is_not_quantised_has_one_total(results_of: ResultsOf) -> None:
    results = results_of(Spec())
    counts = replace(results.parameters, total_packed=results.parameters.total_logical)
    explanation = page(replace(results, parameters=counts)).parameters.explanation
    assert "Two totals" not in explanation


def test_a_classification_head_has_no_label_tokens(results_of: ResultsOf) -> None:
    made = page(results_of(Spec(head="sequence-classification")))
    assert made.prompt.labels is None
    assert "no label tokens" in made.prompt.lead
    assert "AutoModelForSequenceClassification" in made.snippet


def test_every_configured_value_is_shown(results_of: ResultsOf) -> None:
    results = results_of(Spec())
    config = dataclasses.asdict(results.run.config)
    shown = {
        (table.caption, row.cells[0]) for table in page(results).configuration for row in table.rows
    }
    for section, values in config.items():
        keys = values if isinstance(values, dict) else {section: values}
        where = section if isinstance(values, dict) else "job"
        assert {(where, key) for key in keys} <= shown


def test_the_demo_is_called_one(results_of: ResultsOf) -> None:
    assert page(results_of(Spec(demo=True))).summary.demo
    assert not page(results_of(Spec())).summary.demo


def test_shares_of_probability_bars_are_percent_of_their_row(results_of: ResultsOf) -> None:
    for kind in page(results_of(Spec())).cases.kinds:
        for case in kind.cases:
            for answer in case.answers:
                assert sum(bar.width for bar in answer.bars) == pytest.approx(100)


def test_no_text_of_a_hostile_run_holds_a_control_character(results_of: ResultsOf) -> None:
    for text in texts(page(results_of(Spec(hostile=True)))):
        assert not [c for c in text if ord(c) < 32 and c not in "\n\t"]


def test_control_characters_become_visible() -> None:
    assert visible("a\x00b\x1b\n") == "a\u2400b\u241b\n"


def test_figures_stay_with_their_units() -> None:
    assert unbroken("p = 0.02 on 5 % in 3 s of 4 seconds") == (
        "p\u00a0=\u00a00.02 on 5\u00a0% in 3\u00a0s of 4 seconds"
    )


def test_a_run_without_free_text_says_so(tmp_path: Path) -> None:
    results = build_results(build_run(tmp_path, Spec(generations=False)))
    answer = page(results).cases.kinds[0].cases[0].answers[0]
    assert answer.text is None
    assert answer.text_note == "no free text was generated"
