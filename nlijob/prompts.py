"""Turns rows into prompts, as plain text without a tokenizer."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from nlijob.records.job import Example

AnswerStyle = Literal["digits", "letters", "names"]
STYLES: tuple[AnswerStyle, ...] = ("digits", "letters", "names")
"""What answers can be, in the order in which they are tried."""


class HasTemplate(Protocol):
    """What `prompt_text` needs: a template, of the configuration or as it was resolved."""

    @property
    def template(self) -> str:
        """Text with {premise} and {hypothesis}."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as one tokenizer and one set of labels make it."""

    template: str
    """The whole text with {premise} and {hypothesis} alone: answers and chat are filled in."""
    verbalizers: tuple[str, ...] = ()
    """The answer of each label, as it follows the text."""
    style: str = ""
    """What the answers are: one of `STYLES`, or "recipe" if it gives them."""
    answer_start: tuple[int, ...] = ()
    """Tokens that all answers begin with. They stand at the end of the model input."""
    label_tokens: tuple[int, ...] = ()
    """For each label, the token that tells its answer from the others; empty without answers."""
    tokens_before: tuple[int, ...] | None = None
    """Special tokens before the text, if the model input is not what the tokenizer makes of the
    text by itself; None if it is."""
    is_chat: bool = False
    """Whether the text is a conversation, with all its special tokens written in it."""
    notes: tuple[str, ...] = ()
    """What a user should know about it, a sentence each."""


def prompt_text(prompt: HasTemplate, example: Example) -> str:
    """Return the row in the prompt's template."""
    return prompt.template.format(premise=example.premise, hypothesis=example.hypothesis)


def style_words(style: AnswerStyle, label_names: Sequence[str]) -> tuple[str, ...]:
    """Return the answer of each label; empty if there are more labels than digits or letters."""
    if style == "names":
        return tuple(label_names)
    characters = string.digits if style == "digits" else string.ascii_uppercase
    return tuple(characters[: len(label_names)]) if len(label_names) <= len(characters) else ()


def with_answers(template: str, words: Sequence[str], label_names: Sequence[str]) -> str:
    """Return the template with {answers} replaced by the answers and what they stand for."""
    if list(words) == list(label_names):
        text = ", ".join(words)
    else:
        pairs = zip(words, label_names, strict=True)
        text = ", ".join(f"{word} for {name}" for word, name in pairs)
    return "".join(
        escaped(literal) + (escaped(text) if name == "answers" else _field(name, spec, conversion))
        for literal, name, spec, conversion in string.Formatter().parse(template)
    )


def few_shot_examples(train: Sequence[Example], labels: int, shots: int) -> list[Example]:
    """Return `shots` training rows to put before a prompt with their answers.

    The first rows of each label are used, with the labels in turn, so that the same subset always
    gives the same text and no label is favoured. There are fewer rows if a label runs out.
    """
    by_label = [[row for row in train if row.label == label] for label in range(labels)]
    turns = ((turn % labels, turn // labels) for turn in range(shots))
    return [by_label[label][place] for label, place in turns if place < len(by_label[label])]


def answered_prompts(prompt: Prompt, examples: Sequence[Example]) -> str:
    """Return the rows with their answers, as text to put before a prompt."""
    answered = (prompt_text(prompt, row) + prompt.verbalizers[row.label] for row in examples)
    return "".join(f"{text}\n\n" for text in answered)


def with_prefix(prompt: Prompt, prefix: str) -> Prompt:
    """Return the prompt with a literal text in front of its template."""
    return dataclasses.replace(prompt, template=escaped(prefix) + prompt.template)


def escaped(text: str) -> str:
    """Return a template that stands for the literal text."""
    return text.replace("{", "{{").replace("}", "}}")


def literal_text(template: str) -> str:
    """Return what a template writes itself, without the rows' texts."""
    return "".join(literal for literal, *_ in string.Formatter().parse(template))


def _field(name: str | None, spec: str | None, conversion: str | None) -> str:
    """A replacement field as a template spells it; "" where a literal text ends the template."""
    if name is None:
        return ""
    return (
        "{" + name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
    )
