"""The section on the prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nlijob.records.outcome import Results
from nlijob.report.view.prompt import prompt_section
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome


def changed(**prompt: Any) -> Results:
    results = outcome(Spec())
    return replace(results, prompt=replace(results.prompt, **prompt))


def test_a_classification_head_has_no_label_tokens() -> None:
    prompt = prompt_section(outcome(Spec(head="sequence-classification")))
    assert prompt.labels is None
    assert "no label tokens" in prompt.lead


def test_each_token_of_the_example_is_shown_with_its_text() -> None:
    prompt = prompt_section(changed(example_tokens=(1, 198), example_token_texts=("<s>", "\n")))
    assert prompt.tokens == "      1  <s>\n    198  \\n"


def test_an_older_run_shows_the_numbers_of_its_tokens() -> None:
    prompt = prompt_section(changed(example_tokens=(1, 198), example_token_texts=()))
    assert prompt.tokens == "1 198"


def test_answers_are_shown_with_the_token_that_decides() -> None:
    made = changed(verbalizers=(" A x", " B x", " C"), label_token_texts=("A", "B", "C"))
    first = prompt_section(made).labels.rows[0]
    assert [*first.cells[:3]] == ["entailment", "“ A x”", "“A”"]


@pytest.mark.parametrize(
    ("style", "title"),
    [("digits", "Answers: digits"), ("letters", "letters, as digits do not serve"), ("", "Label")],
)
def test_the_table_says_what_the_answers_are(style: str, title: str) -> None:
    assert title in prompt_section(changed(answer_style=style)).labels.caption


def test_a_conversation_and_its_notes_are_told() -> None:
    prompt = prompt_section(changed(is_chat=True, notes=("The switch thinking is off.",)))
    assert "the model's chat template writes" in prompt.lead
    assert prompt.notes == ("The switch thinking is off.",)
