"""Altered rows, and the answers to them."""

from __future__ import annotations

import pytest

from nlijob.gpu.evidence import MAX_WORDS, blank_premises, leave_one_out, word_importance
from nlijob.records.job import Example, Prediction

pytestmark = pytest.mark.arithmetic

ROW = Example(7, "A man can't sleep.", "He is awake", 0)


def answer(*probabilities: float) -> Prediction:
    predicted = max(range(len(probabilities)), key=probabilities.__getitem__)
    return Prediction("test", 7, 0, predicted, probabilities, None, 1.0, 9)


def test_blanking_the_premise_changes_nothing_else() -> None:
    (blank,) = blank_premises([ROW])
    assert blank == Example(7, "", "He is awake", 0)


def test_each_word_is_left_out_once_with_an_adjacent_space() -> None:
    altered = leave_one_out(ROW)
    assert [a.example.premise for a in altered if a.text == "premise"] == [
        "man can't sleep.",
        "A can't sleep.",
        "A man sleep.",
        "A man can't.",
    ]
    assert [a.example.hypothesis for a in altered if a.text == "hypothesis"] == [
        "is awake",
        "He awake",
        "He is",
    ]


def test_a_word_is_identified_by_its_position_in_the_text() -> None:
    words = [ROW.premise[a.start : a.end] for a in leave_one_out(ROW) if a.text == "premise"]
    assert words == ["A", "man", "can't", "sleep"]


def test_the_only_word_leaves_an_empty_text() -> None:
    (altered,) = leave_one_out(Example(0, "", "Yes", 0))
    assert altered.example.hypothesis == ""


def test_importance_is_the_probability_that_each_models_own_answer_loses() -> None:
    altered = leave_one_out(Example(7, "Dogs", "Cats", 0))
    whole = (answer(0.2, 0.8), answer(0.9, 0.1))
    without = [(answer(0.6, 0.4), answer(0.8, 0.2)), (answer(0.1, 0.9), answer(0.3, 0.7))]
    (result,) = word_importance([Example(7, "Dogs", "Cats", 0)], {7: altered}, {7: whole}, without)
    assert [word.text for word in result.words] == ["premise", "hypothesis"]
    assert [word.base for word in result.words] == pytest.approx([0.4, -0.1])
    assert [word.tuned for word in result.words] == pytest.approx([0.1, 0.6])


def test_words_beyond_the_limit_are_not_left_out_but_counted() -> None:
    row = Example(7, "word " * (MAX_WORDS + 5), "short", 0)
    altered = leave_one_out(row)
    assert len(altered) == MAX_WORDS + 1
    answers = [(answer(0.5, 0.5), answer(0.5, 0.5))] * len(altered)
    (result,) = word_importance([row], {7: altered}, {7: answers[0]}, answers)
    assert result.words_not_tried == 5
