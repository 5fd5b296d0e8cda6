"""How rows become prompts."""

from __future__ import annotations

import pytest

from nlijob.prompts import (
    AnswerStyle,
    Prompt,
    answered_prompts,
    few_shot_examples,
    prompt_text,
    style_words,
    with_answers,
    with_prefix,
)
from nlijob.records.job import Example

PROMPT = Prompt("P: {premise}\nH: {hypothesis}\nA:", (" yes", " maybe", " no"))
ROW = Example(9, "It {rains}.", "It is wet.", 0)
LABELS = ("entailment", "neutral", "contradiction")


def row(index: int, label: int) -> Example:
    return Example(index, f"premise {index}", f"hypothesis {index}", label)


TRAIN = [row(0, 2), row(1, 2), row(2, 0), row(3, 1), row(4, 0)]


def few_shot_prefix(train: list[Example], shots: int) -> str:
    return answered_prompts(PROMPT, few_shot_examples(train, 3, shots))


def test_labels_take_turns_among_the_examples() -> None:
    prefix = few_shot_prefix(TRAIN, 4)
    answers = [line for line in prefix.splitlines() if line.startswith("A:")]
    assert answers == ["A: yes", "A: maybe", "A: no", "A: yes"]
    assert prefix.startswith("P: premise 2\nH: hypothesis 2\nA: yes\n\nP: premise 3\n")


def test_a_label_without_rows_left_is_skipped() -> None:
    assert few_shot_prefix(TRAIN, 9).count("A:") == 5


def test_no_shots_leave_the_prompt_as_it_is() -> None:
    assert few_shot_prefix(TRAIN, 0) == ""
    assert with_prefix(PROMPT, "") == PROMPT


def test_braces_in_examples_are_kept_literally() -> None:
    prefix = few_shot_prefix([ROW], 1)
    assert "It {rains}." in prefix
    assert prompt_text(with_prefix(PROMPT, prefix), row(5, 1)) == prefix + prompt_text(
        PROMPT, row(5, 1)
    )


def test_answers_are_named_with_the_labels_that_they_stand_for() -> None:
    template = with_answers(
        "{{Say}} {answers}: {premise!s:>3} {hypothesis}", ("0", "1", "2"), LABELS
    )
    assert template == (
        "{{Say}} 0 for entailment, 1 for neutral, 2 for contradiction: {premise!s:>3} {hypothesis}"
    )


def test_answers_that_are_the_labels_names_are_listed() -> None:
    assert with_answers("Say {answers}.", LABELS, LABELS) == (
        "Say entailment, neutral, contradiction."
    )


def test_braces_in_a_labels_name_are_kept_literally() -> None:
    template = with_answers("{answers} {premise} {hypothesis}", ("A", "B"), ("{x}", "y"))
    assert template.format(premise="p", hypothesis="h") == "A for {x}, B for y p h"


@pytest.mark.parametrize(
    ("style", "labels", "last"),
    [("digits", 10, "9"), ("letters", 26, "Z"), ("names", 30, "label 29")],
)
def test_there_are_as_many_digits_letters_and_names_as_there_are(
    style: AnswerStyle, labels: int, last: str
) -> None:
    names = [f"label {number}" for number in range(labels)]
    assert style_words(style, names)[-1] == last
    if style != "names":
        assert style_words(style, [*names, "one more"]) == ()
