"""How rows become prompts."""

from __future__ import annotations

from nlijob.config import PromptConfig
from nlijob.prompts import few_shot_prefix, prompt_text, with_prefix
from nlijob.records.job import Example

PROMPT = PromptConfig("P: {premise}\nH: {hypothesis}\nA:", (" yes", " maybe", " no"))
ROW = Example(9, "It {rains}.", "It is wet.", 0)


def row(index: int, label: int) -> Example:
    return Example(index, f"premise {index}", f"hypothesis {index}", label)


TRAIN = [row(0, 2), row(1, 2), row(2, 0), row(3, 1), row(4, 0)]


def test_labels_take_turns_among_the_examples() -> None:
    prefix = few_shot_prefix(PROMPT, TRAIN, 4)
    answers = [line for line in prefix.splitlines() if line.startswith("A:")]
    assert answers == ["A: yes", "A: maybe", "A: no", "A: yes"]
    assert prefix.startswith("P: premise 2\nH: hypothesis 2\nA: yes\n\nP: premise 3\n")


def test_a_label_without_rows_left_is_skipped() -> None:
    assert few_shot_prefix(PROMPT, TRAIN, 9).count("A:") == 5


def test_no_shots_leave_the_prompt_as_it_is() -> None:
    assert few_shot_prefix(PROMPT, TRAIN, 0) == ""
    assert with_prefix(PROMPT, "") == PROMPT


def test_braces_in_examples_are_kept_literally() -> None:
    prefix = few_shot_prefix(PROMPT, [ROW], 1)
    assert "It {rains}." in prefix
    assert prompt_text(with_prefix(PROMPT, prefix), row(5, 1)) == prefix + prompt_text(
        PROMPT, row(5, 1)
    )
