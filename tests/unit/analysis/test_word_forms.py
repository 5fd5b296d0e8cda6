"""A word is named as missing from a text only if no form of it is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlijob.analysis.tags import compare_words
from nlijob.analysis.word_forms import form, numbers, only_here, words

SAME = [
    ("dog", "dogs"),
    ("box", "boxes"),
    ("baby", "babies"),
    ("movie", "movies"),
    ("horse", "horses"),
    ("glass", "glasses"),
    ("child", "children"),
    ("man", "man's"),
    ("wife", "wives"),
    ("run", "running"),
    ("run", "ran"),
    ("sit", "sat"),
    ("dance", "danced"),
    ("carry", "carried"),
    ("stop", "stopped"),
    ("colour", "colors"),
    ("grey", "gray"),
    ("theatre", "theaters"),
    ("travelling", "traveled"),
    ("neighbours", "neighbor"),
    ("realise", "realizing"),
    ("pyjamas", "pajamas"),
]
OTHER = [("dog", "cat"), ("four", "for"), ("bus", "bush"), ("sun", "son"), ("king", "kind")]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_forms_of_a_word_have_one_key(one: str, other: str) -> None:
    assert form(one) == form(other)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_other_words_have_other_keys(one: str, other: str) -> None:
    assert form(one) != form(other)


@pytest.mark.parametrize(
    ("premise", "hypothesis"),
    [
        ("Three dogs run.", "3 dogs run."),
        ("3 dogs run.", "Three dogs run."),
        ("Twenty-five people sing.", "25 people sing."),
        ("A dozen eggs lie there.", "12 eggs lie there."),
        ("A couple of boys play.", "Two boys play."),
        ("Half a dozen boys play.", "Six boys play."),
        ("The dog RUNS.", "Dogs run"),
        ("A man in a T-shirt.", "A man in a tshirt."),
        ("A man in a tshirt.", "A man in a t-shirt."),
        ("A cell phone rings.", "The cellphone rings."),
        ("The boy\u2019s hat", "The boy's hat"),
        ("The boys hat", "The boy`s hat"),
        ("The caf\u00e9", "The cafe\u0301"),
        ("A grey theatre", "A gray theater"),
        ("A dog is here", "It's a dog"),
        ("He cannot run", "He can not run"),
    ],
)
def test_nothing_is_named_as_missing_that_is_there_in_another_form(
    premise: str, hypothesis: str
) -> None:
    assert compare_words(premise, hypothesis).only_in_hypothesis == ()


def test_a_word_without_any_form_in_the_other_text_is_named_as_written() -> None:
    found = compare_words("Three dogs run.", "Four sad cats ran home")
    assert found.only_in_hypothesis == ("four", "sad", "cats", "home")
    assert found.only_in_premise == ("three", "dogs")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("Twenty-one men and 3 boys", ["21", "3"]),
        ("two hundred and five of 1,000,000", ["205", "1000000"]),
        ("a hundred, a dozen, two dozen", ["100", "12", "24"]),
        ("3.50 dollars at 10:30", ["3.5", "10", "30"]),
        ("three thousand two hundred", ["3200"]),
        ("half a dozen and a half million", ["6", "500000"]),
        ("the 3rd of 1990s", []),
        ("nobody", []),
    ],
)
def test_numbers_are_read_in_words_and_digits(text: str, values: list[str]) -> None:
    assert [number.value for number in numbers(words(text))] == values


def test_very_long_numbers_are_read() -> None:
    assert [len(number.value) > 4000 for number in numbers(words("9" * 5000))] == [True]


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_word_that_both_texts_have_is_never_named(premise: str, hypothesis: str) -> None:
    own, other = words(hypothesis), words(premise)
    assert not only_here(own, other) & {*other}
