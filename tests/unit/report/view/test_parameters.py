"""The size of the model."""

from __future__ import annotations

from dataclasses import replace

from nlijob.report.view.parameters import parameters_section
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome


def test_both_totals_are_explained() -> None:
    parameters = parameters_section(outcome(Spec()))
    counts = {row.cells[0]: row.cells[1] for row in parameters.counts.rows}
    assert counts["total, logical"] == "2,800,655,360"
    assert counts["total, packed"] == "1,542,364,160"
    assert "The logical total" in parameters.explanation


def test_a_model_that_is_not_quantised_has_one_total() -> None:
    results = outcome(Spec())
    counts = replace(results.parameters, total_packed=results.parameters.total_logical)
    explanation = parameters_section(replace(results, parameters=counts)).explanation
    assert "The logical total" not in explanation
