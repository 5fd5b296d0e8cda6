"""From a row to the text that a model reads; pure text, no tokenizer."""

from __future__ import annotations

from nlijob.config import PromptConfig
from nlijob.records import Example


def prompt_text(prompt: PromptConfig, example: Example) -> str:
    """The row in the recipe's template."""
    return prompt.template.format(premise=example.premise, hypothesis=example.hypothesis)
