"""The section on failure cases."""

from __future__ import annotations

import pytest

from nlijob.records.outcome import Results
from nlijob.report.view.cases import cases_section
from nlijob.report.view.parts import View
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome


def cases(results: Results) -> View:
    return cases_section(results)


def test_shares_of_probability_bars_are_percent_of_their_row() -> None:
    for kind in cases(outcome(Spec())).kinds:
        for case in kind.cases:
            for answer in case.answers:
                assert sum(bar.width for bar in answer.bars) == pytest.approx(100)


def test_a_run_without_free_text_says_so() -> None:
    answer = cases(outcome(Spec(generations=False))).kinds[0].cases[0].answers[0]
    assert answer.text is None
    assert answer.text_note == "no free output was generated"
