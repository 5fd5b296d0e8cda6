"""Warnings are sorted by how much they weigh."""

from __future__ import annotations

import pytest

from nlijob.analysis.severity import SEVERITY, WORDS, by_severity, severity_of
from nlijob.records.outcome import Finding
from tests.docs.test_results import codes_of_findings
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome

GATES = {"min-accuracy", "min-gain"}


def finding(code: str, **figures: int | float | str) -> Finding:
    return Finding(code, figures, f"{code}.")


def test_every_warning_has_a_severity() -> None:
    assert set(SEVERITY) == codes_of_findings() - GATES


def test_the_most_severe_come_first_and_equal_ones_keep_their_order() -> None:
    mixed = [finding(code) for code in ("data", "forgotten", "overfitting", "unclear-gain")]
    ranked = by_severity([*mixed, finding("slices-worse")])
    assert [(one.code, one.severity) for one in ranked] == [
        ("unclear-gain", "against"),
        ("forgotten", "limits"),
        ("slices-worse", "limits"),
        ("data", "note"),
        ("overfitting", "note"),
    ]


@pytest.mark.parametrize(
    ("found", "severity"),
    [
        (finding("one-label", model="tuned"), "against"),
        (finding("one-label", model="base"), "limits"),
        (finding("test-rows-in-training", whole_rows=5, rows=1000), "against"),
        (finding("test-rows-in-training", whole_rows=4, rows=1000), "limits"),
        (finding("test-rows-in-validation", whole_rows=1, rows=1000), "limits"),
        (finding("worse-recall", adjusted_p=0.049), "limits"),
        (finding("worse-recall", adjusted_p=0.05), "note"),
        (finding("worse-recall"), "note"),
        (finding(""), "note"),
    ],
)
def test_figures_can_make_a_warning_weigh_less(found: Finding, severity: str) -> None:
    assert severity_of(found) == severity


def test_results_have_sorted_warnings_with_severities() -> None:
    warnings = outcome(Spec(rows=14, train_rows=40, epochs=3)).warnings
    order = [tuple(WORDS).index(one.severity) for one in warnings if one.severity]
    assert len(order) == len(warnings)
    assert order == sorted(order)
    assert {0, 1, 2} == set(order)
