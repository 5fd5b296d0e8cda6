"""Turns rows into prompts, as plain text without a tokenizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from nlijob.config import PromptConfig
from nlijob.records.job import Example


def prompt_text(prompt: PromptConfig, example: Example) -> str:
    """Return the row in the recipe's template."""
    return prompt.template.format(premise=example.premise, hypothesis=example.hypothesis)


def few_shot_prefix(prompt: PromptConfig, train: Sequence[Example], shots: int) -> str:
    """Return `shots` training rows with their answers, to put before a prompt.

    The first rows of each label are used, with the labels in turn, so that the same subset always
    gives the same text and no label is favoured. There are fewer rows if a label runs out.
    """
    by_label = [[row for row in train if row.label == n] for n in range(len(prompt.verbalizers))]
    turns = ((turn % len(by_label), turn // len(by_label)) for turn in range(shots))
    rows = [by_label[label][place] for label, place in turns if place < len(by_label[label])]
    answered = (prompt_text(prompt, row) + prompt.verbalizers[row.label] for row in rows)
    return "".join(f"{text}\n\n" for text in answered)


def with_prefix(prompt: PromptConfig, prefix: str) -> PromptConfig:
    """Return the prompt with a literal text in front of its template."""
    literal = prefix.replace("{", "{{").replace("}", "}}")
    return dataclasses.replace(prompt, template=literal + prompt.template)
