"""Links from figures elsewhere on the page to the failure cases behind them.

A link sets the filter of the failure cases. Where scripts are off, it leads to their section.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal
from urllib.parse import urlencode

from nlijob.records.outcome import CaseGroups, Slice
from nlijob.report.view.case_list import TAG_CODES, abbreviations, base_36, rows_by_kind
from nlijob.report.view.parts import CaseLink
from nlijob.report.view.text import as_name

Side = Literal["before", "after"]
"""The base model, or the tuned one."""
Answers = frozenset[tuple[int, int]]
"""Pairs of gold label and answer."""


def answers_with_cases(groups: CaseGroups, side: Side) -> Answers:
    """The pairs of gold label and this model's answer that at least one failure case has."""
    rows = [row for of in rows_by_kind(groups).values() for row in of]
    if side == "before":
        return frozenset((row.label, row.base_predicted) for row in rows)
    return frozenset((row.label, row.tuned_predicted) for row in rows)


def answer_link(gold: int, answer: int, side: Side, label_names: Sequence[str]) -> CaseLink:
    """To the cases with this gold label and this answer of the base or the tuned model."""
    codes = abbreviations(label_names)
    return CaseLink(_query({"gold": codes[gold], side: codes[answer]}))


def slice_link(one: Slice, label_names: Sequence[str]) -> CaseLink | None:
    """To the cases in a slice; None if both models label all of its rows correctly."""
    if not one.wrong_rows:
        return None
    if one.family == "gold label":
        gold = abbreviations(label_names)[label_names.index(one.key)]
        return CaseLink(_query({"gold": gold}))
    if one.family == "tag":
        return CaseLink(_query({"tag": TAG_CODES[one.key]}))
    name = {"slice": as_name(f"{one.family}: {one.key}")}
    return CaseLink(_query(name), _steps(one.wrong_rows))


def _query(values: dict[str, str]) -> str:
    return urlencode(values, errors="replace")  # a name from the data may hold half a character


def _steps(numbers: Iterable[int]) -> str:
    """Increasing numbers as the first one and the steps to the others, in base 36.

    A step of several digits stands between dots, so most rows take one letter.
    """
    steps = (base_36(number - last) for last, number in pairwise((0, *numbers)))
    return "".join(step if len(step) == 1 else f".{step}." for step in steps)
