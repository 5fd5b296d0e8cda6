"""The words of a shown case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nlijob.records.job import OccludedWord
from nlijob.report.view.words import differing_words, not_tried, word_importance
from tests.synthetic import LABELS, Spec
from tests.unit.report.view.outcomes import outcome

CASE = replace(
    outcome(Spec()).cases.shown_corrected[0],
    premise="A dog runs.",
    hypothesis="A cat runs.",
    base_predicted=1,
    tuned_predicted=2,
    word_importance=(
        OccludedWord("premise", 0, 1, 0.01, -0.2),
        OccludedWord("premise", 2, 5, 0.3, 0.9),
        OccludedWord("hypothesis", 2, 5, 0.0, 0.25),
    ),
    words_not_tried=0,
)


def test_words_in_only_one_text_are_marked_and_no_text_is_lost() -> None:
    premise, hypothesis = differing_words(CASE)
    assert [part.text for part in premise if part.only_here] == ["dog"]
    assert [part.text for part in hypothesis if part.only_here] == ["cat"]
    assert "".join(part.text for part in premise) == CASE.premise
    assert "".join(part.text for part in hypothesis) == CASE.hypothesis


def test_importance_keeps_the_text_and_weights_the_words() -> None:
    base, tuned = word_importance(CASE, LABELS)
    assert (base.model, base.answer) == ("base model", "neutral")
    assert (tuned.model, tuned.answer) == ("tuned model", "contradiction")
    assert "".join(part.text for part in tuned.premise) == CASE.premise
    assert "".join(part.text for part in tuned.hypothesis) == CASE.hypothesis
    strengths = {part.text: part.strength for part in tuned.premise if part.strength}
    assert strengths == {"A": pytest.approx(40), "dog": 100}
    assert [part.text for part in tuned.premise if part.against] == ["A"]


def test_the_words_that_matter_most_come_first_with_their_figures() -> None:
    base, tuned = word_importance(CASE, LABELS)
    assert tuned.top == "“dog” +0.90, “cat” +0.25 and “A” \u22120.20"
    assert base.top == "“dog” +0.30"


def test_a_case_without_important_words_says_so() -> None:
    calm = replace(CASE, word_importance=(OccludedWord("premise", 0, 1, 0.0, 0.001),))
    assert {one.top for one in word_importance(calm, LABELS)} == {"no single word matters much"}


def test_without_measurements_nothing_is_shown() -> None:
    assert word_importance(replace(CASE, word_importance=()), LABELS) == ()


def test_words_that_were_not_tried_are_counted() -> None:
    assert not_tried(CASE) == ""
    assert not_tried(replace(CASE, words_not_tried=7)).startswith("Not tried: 7 words")


def test_a_very_long_text_ends_where_the_last_word_was_tried() -> None:
    long = replace(CASE, premise="A dog " + "runs on " * 100, words_not_tried=198)
    _, tuned = word_importance(long, LABELS)
    assert "".join(part.text for part in tuned.premise) == "A dog …"
