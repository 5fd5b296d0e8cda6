"""Every test row that at least one model got wrong, in one table."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from nlijob.analysis.tags import TAGS
from nlijob.records.outcome import CaseGroups, CaseRow
from nlijob.report.view.case_list import MOST_BYTES, TAG_CODES, abbreviations, case_list
from tests.synthetic import LABELS, Spec
from tests.unit.report.view.outcomes import outcome

GROUPS = outcome(Spec()).cases


def row(index: int, premise: str = "A dog runs.", **changes: object) -> CaseRow:
    whole = CaseRow(index, premise, "A dog sits.", 2, 1, 2, 0.1, 0.9, 0.8, ("negation", "removed"))
    return replace(whole, **changes)  # type: ignore[arg-type]


def groups(corrected: list[CaseRow], wrong: list[CaseRow], broken: list[CaseRow]) -> CaseGroups:
    return replace(
        GROUPS,
        rows_corrected=tuple(corrected),
        rows_still_wrong=tuple(wrong),
        rows_newly_broken=tuple(broken),
    )


def test_every_row_of_the_three_kinds_is_listed_once_in_their_order() -> None:
    found = case_list(GROUPS, LABELS)
    whole = (*GROUPS.rows_newly_broken, *GROUPS.rows_still_wrong, *GROUPS.rows_corrected)
    assert [one.index for one in found.rows] == [one.index for one in whole]
    assert found.title == f"All {len(whole)} rows that at least one model got wrong"
    assert found.note == ""


def test_labels_and_tags_are_abbreviated_and_the_legend_says_how() -> None:
    found = case_list(groups([row(1)], [], []), LABELS)
    (one,) = found.rows
    assert (one.kind, one.gold, one.before, one.after) == ("c", "con", "neu", "con")
    assert (one.margin, one.tags) == ("+0.80", "neg rem")
    legend = dict(found.legend)
    assert legend["con"] == "contradiction"
    assert legend["neg"].startswith("negation in one text only: ")
    assert "gen" not in legend


def test_each_filter_offers_the_values_with_the_number_of_rows() -> None:
    rows = [row(1), row(2, tuned_predicted=0), row(3, base_predicted=2, tuned_predicted=0)]
    found = case_list(groups(rows[:1], rows[1:2], rows[2:]), LABELS)
    offered = {
        one.name: {option.value: option.text for option in one.options} for one in found.filters
    }
    assert offered.keys() == {"kind", "gold", "before", "after", "tag"}
    assert offered["kind"] == {
        "n": "newly broken (1)",
        "s": "still wrong (1)",
        "c": "corrected (1)",
    }
    assert offered["after"] == {
        "ent": "entailment (2)",
        "neu": "neutral (0)",
        "con": "contradiction (1)",
    }
    assert offered["tag"]["neg"] == "negation in one text only (3)"


def test_probabilities_are_in_the_order_of_the_rows() -> None:
    rows = [row(1), row(2, base_gold_probability=0.0004, margin=-0.25)]
    found = case_list(groups(rows[:1], [], rows[1:]), LABELS)
    assert [one.index for one in found.rows] == [2, 1]
    digits = re.findall("(..)(..)(...)", found.probabilities)
    assert [[int(one, 36) for one in row] for row in digits] == [[0, 900, 750], [100, 900, 1800]]


def test_rows_that_do_not_fit_are_dropped_from_the_end_of_each_kind_with_a_note() -> None:
    long = "word " * 2_000
    corrected = [row(index, long) for index in range(200)]
    wrong = [row(1_000, tuned_predicted=0)]
    found = case_list(groups(corrected, wrong, []), LABELS)
    listed = [one.index for one in found.rows]
    assert listed == [1_000, *range(len(listed) - 1)]
    assert sum(len(one.premise) for one in found.rows) < MOST_BYTES
    assert len(listed) < 120
    assert found.title == f"{len(listed)} of 201 rows that at least one model got wrong"
    assert found.note.startswith(f"{201 - len(listed)} rows with smaller margins left out")


def test_every_tag_has_a_code_of_its_own() -> None:
    assert set(TAG_CODES) == {tag.key for tag in TAGS}
    assert len(set(TAG_CODES.values())) == len(TAGS)


@pytest.mark.parametrize(
    ("names", "codes"),
    [
        (LABELS, ("ent", "neu", "con")),
        (("entails", "entailed"), ("entails", "entaile")),
        (("yes", "no"), ("yes", "no")),
        (("not so", "not"), ("L0", "L1")),
    ],
)
def test_abbreviations_of_labels_are_distinct(
    names: tuple[str, ...], codes: tuple[str, ...]
) -> None:
    assert abbreviations(names) == codes
