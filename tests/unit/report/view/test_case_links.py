"""Links from figures to the failure cases behind them."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import accumulate

from nlijob.report.view.accuracy import accuracy_section
from nlijob.report.view.case_links import slice_link
from nlijob.report.view.slices import slices_section
from tests.synthetic import LABELS, Spec
from tests.unit.report.view.outcomes import outcome

RESULTS = outcome(Spec())


def test_a_cell_of_a_confusion_matrix_leads_to_its_cases() -> None:
    before, after = accuracy_section(RESULTS).matrices
    (_, entailment), *_ = before.rows
    assert entailment[1].cases is not None
    assert entailment[1].cases.filter == "gold=ent&before=neu"
    (_, entailment), *_ = after.rows
    assert entailment[0].cases is not None
    assert entailment[0].cases.filter == "gold=ent&after=ent"


def test_a_cell_without_cases_leads_nowhere() -> None:
    cases = replace(RESULTS.cases, rows_corrected=(), rows_still_wrong=(), rows_newly_broken=())
    for matrix in accuracy_section(replace(RESULTS, cases=cases)).matrices:
        assert all(cell.cases is None for _, cells in matrix.rows for cell in cells)


def test_a_slice_leads_to_its_rows_unless_label_or_tag_say_which_they_are() -> None:
    by_key = {(one.family, one.key): one for one in RESULTS.slices}
    label = slice_link(by_key["gold label", "neutral"], LABELS)
    assert label is not None
    assert (label.filter, label.rows) == ("gold=neu", "")
    tag = slice_link(by_key["tag", "negation"], LABELS)
    assert tag is not None
    assert (tag.filter, tag.rows) == ("tag=neg", "")
    length = by_key["length", "short"]
    link = slice_link(length, LABELS)
    assert link is not None
    assert link.filter == "slice=length%3A+short"
    steps = (long or short for long, short in re.findall(r"\.(\w+)\.|(\w)", link.rows))
    assert tuple(accumulate(int(step, 36) for step in steps)) == length.wrong_rows


def test_a_slice_without_a_wrong_row_leads_nowhere() -> None:
    assert slice_link(replace(RESULTS.slices[0], wrong_rows=()), LABELS) is None


def test_each_slice_with_cases_is_a_link() -> None:
    judged = [one for one in RESULTS.slices if one.judged]
    rows = slices_section(RESULTS).table.rows
    assert [row.cases for row in rows] == [slice_link(one, LABELS) for one in judged]
    assert any(row.cases for row in rows)
