"""Altered test rows and the models' answers to them: the premise control and word importance."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nlijob.records.job import Example, OccludedWord, Occlusion, Prediction, TextName

MAX_WORDS = 60
"""Words of one text that are left out in turn. Without a limit, one row of thousands of words would
take as long as all the others."""
WORD = re.compile(r"\w+(?:['\u2019]\w+)*")

Answers = tuple[Prediction, Prediction]
"""The base model's and the tuned model's answers to the same input."""


@dataclass(frozen=True)
class Altered:
    """A row with one word left out."""

    text: TextName
    start: int
    """Position of the word's first character in the text."""
    end: int
    """Position after its last character."""
    example: Example
    """The row without the word."""


def blank_premises(examples: Iterable[Example]) -> list[Example]:
    """Return the rows with empty premises.

    What a model still gets right, it gets right without reading the premise.
    """
    return [replace(example, premise="") for example in examples]


def leave_one_out(example: Example) -> list[Altered]:
    """Return the row without its first word, without its second word, and so on."""
    return [
        Altered(name, *found.span(), _with(example, name, _without(text, *found.span())))
        for name, text in _texts(example)
        for found in list(WORD.finditer(text))[:MAX_WORDS]
    ]


def word_importance(
    examples: Sequence[Example],
    altered: Mapping[int, Sequence[Altered]],
    whole: Mapping[int, Answers],
    without: Iterable[Answers],
) -> list[Occlusion]:
    """Return how much each word contributes to each model's answer to the whole row.

    `altered` and `whole` map row numbers to altered rows and to answers. `without` holds the
    answers to all altered rows, in order. The measure is occlusion: the answer's probability with
    the word minus its probability without it (Li et al., 2016, Understanding neural networks
    through representation erasure).
    """
    answers = iter(without)
    return [
        Occlusion(
            example.index,
            tuple(
                _importance(one, whole[example.index], next(answers))
                for one in altered[example.index]
            ),
            sum(max(0, len(WORD.findall(text)) - MAX_WORDS) for _, text in _texts(example)),
        )
        for example in examples
    ]


def _importance(altered: Altered, whole: Answers, without: Answers) -> OccludedWord:
    base, tuned = (
        before.probabilities[before.predicted] - after.probabilities[before.predicted]
        for before, after in zip(whole, without, strict=True)
    )
    return OccludedWord(altered.text, altered.start, altered.end, base, tuned)


def _texts(example: Example) -> tuple[tuple[TextName, str], ...]:
    return ("premise", example.premise), ("hypothesis", example.hypothesis)


def _with(example: Example, name: TextName, text: str) -> Example:
    if name == "premise":
        return replace(example, premise=text)
    return replace(example, hypothesis=text)


def _without(text: str, start: int, end: int) -> str:
    """Return the text without a word and without one of the spaces around it."""
    if text[end : end + 1] == " ":
        end += 1
    elif start and text[start - 1] == " ":
        start -= 1
    return text[:start] + text[end:]
