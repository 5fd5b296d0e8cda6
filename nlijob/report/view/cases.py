"""The failure cases: rows that tuning corrected, left wrong or broke."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nlijob.analysis.wording import count, percent, probability, share_of
from nlijob.records.outcome import Case, CaseGroups, Results
from nlijob.report.view.case_list import CaseList, case_list
from nlijob.report.view.text import unbroken, visible
from nlijob.report.view.words import (
    Importance,
    Stretch,
    differing_words,
    not_tried,
    word_importance,
)


@dataclass(frozen=True)
class Bar:
    """The probability of one label."""

    label: str
    text: str
    width: float
    """0 to 100, percent of the full bar."""
    gold: bool
    answer: bool


@dataclass(frozen=True)
class Answer:
    """One model's answer for a row."""

    model: str
    label: str
    right: bool
    bars: tuple[Bar, ...]
    text: str | None
    """Free output; None if none was generated."""
    text_note: str


@dataclass(frozen=True)
class ShownCase:
    """A row with both models' answers."""

    anchor: str
    row: str
    premise: tuple[Stretch, ...]
    hypothesis: tuple[Stretch, ...]
    gold: str
    answers: tuple[Answer, ...]
    tags: tuple[str, ...]
    explanation: str
    overlap: str
    """Share of the hypothesis's content words that are also in the premise."""
    importance: tuple[Importance, ...]
    """Word importance for the base and the tuned model; empty if not measured."""
    not_tried: str


@dataclass(frozen=True)
class Kind:
    """The cases of one kind."""

    key: str
    title: str
    lead: str
    count: str
    cases: tuple[ShownCase, ...]


@dataclass(frozen=True)
class Segment:
    """One group's share of all test rows."""

    key: str
    name: str
    text: str
    width: float
    """0 to 100, percent of all rows."""


@dataclass(frozen=True)
class Cases:
    """The section on failure cases."""

    segments: tuple[Segment, ...]
    kinds: tuple[Kind, ...]
    all_rows: CaseList


def cases_section(results: Results) -> Cases:
    """Counts of every kind, the shown cases, and the table of all wrong rows."""
    groups, label_names = results.cases, results.manifest.label_names
    rows = groups.both_right + groups.corrected + groups.still_wrong + groups.newly_broken
    counts = (
        ("both-right", "both correct", groups.both_right),
        ("corrected", "corrected", groups.corrected),
        ("still-wrong", "still wrong", groups.still_wrong),
        ("newly-broken", "newly broken", groups.newly_broken),
    )
    return Cases(
        segments=tuple(
            Segment(key, name, share_of(number, rows), 100 * number / rows)
            for key, name, number in counts
        ),
        kinds=_kinds(groups, label_names),
        all_rows=case_list(groups, label_names),
    )


def _kinds(groups: CaseGroups, label_names: Sequence[str]) -> tuple[Kind, ...]:
    return (
        _kind(
            "corrected",
            "Corrected by tuning",
            "the base model was wrong, the tuned model is correct",
            "those where the gold label gained the most probability",
            groups.corrected,
            groups.shown_corrected,
            label_names,
        ),
        _kind(
            "still-wrong",
            "Still wrong",
            "wrong before and after",
            "the tuned model's most confident mistakes",
            groups.still_wrong,
            groups.shown_still_wrong,
            label_names,
        ),
        _kind(
            "newly-broken",
            "Newly broken",
            "the base model was correct, the tuned model is wrong",
            "those where the gold label lost the most probability",
            groups.newly_broken,
            groups.shown_newly_broken,
            label_names,
        ),
    )


def _kind(
    key: str,
    title: str,
    meaning: str,
    chosen: str,
    number: int,
    shown: Sequence[Case],
    label_names: Sequence[str],
) -> Kind:
    if not number:
        lead = f"No test rows: {meaning}."
    elif number > len(shown):
        lead = f"{len(shown)} of {count(number)} shown ({meaning}): {chosen}."
    else:
        lead = f"All {count(number)} shown ({meaning})." if number > 1 else f"One row: {meaning}."
    return Kind(
        key=key,
        title=title,
        lead=lead,
        count=count(number),
        cases=tuple(_shown(key, case, label_names) for case in shown),
    )


def _shown(key: str, case: Case, label_names: Sequence[str]) -> ShownCase:
    base = (case.base_predicted, case.base_probabilities, case.base_text)
    tuned = (case.tuned_predicted, case.tuned_probabilities, case.tuned_text)
    premise, hypothesis = differing_words(case)
    return ShownCase(
        anchor=f"{key}-{case.index}",
        row=f"test row {case.index}",
        premise=premise,
        hypothesis=hypothesis,
        gold=label_names[case.label],
        answers=(
            _answer("base model", case.label, *base, label_names),
            _answer("tuned model", case.label, *tuned, label_names),
        ),
        tags=case.tags,
        explanation=unbroken(case.explanation),
        overlap=_overlap(case),
        importance=word_importance(case, label_names),
        not_tried=not_tried(case),
    )


def _overlap(case: Case) -> str:
    if case.overlap is None:
        return "the hypothesis has no content words"
    return f"{percent(case.overlap, 0)} of the hypothesis's content words"


def _answer(
    model: str,
    gold: int,
    predicted: int,
    probabilities: Sequence[float],
    text: str | None,
    label_names: Sequence[str],
) -> Answer:
    bars = (
        Bar(name, probability(value), 100 * value, label == gold, label == predicted)
        for label, (name, value) in enumerate(zip(label_names, probabilities, strict=True))
    )
    return Answer(
        model=model,
        label=label_names[predicted],
        right=predicted == gold,
        bars=tuple(bars),
        text=None if text is None else visible(text),
        text_note=_text_note(text),
    )


def _text_note(text: str | None) -> str:
    if text is None:
        return "no free output was generated"
    if not text.strip():
        return "empty"
    return "continues after its first line" if "\n" in text.strip() else ""
