"""Lines for the console about what the GPU side has found and measured."""

from __future__ import annotations

from nlijob.analysis.wording import percent
from nlijob.prompts import Prompt
from nlijob.records.job import HeadOrigin, SplitScore


def prompt_line(prompt: Prompt) -> str:
    """How the prompt was resolved, in a line for the console."""
    form = "in the model's chat template" if prompt.is_chat else "plain text"
    if not prompt.template:
        form = "premise and hypothesis as a pair"
    answers = ", ".join(map(repr, prompt.verbalizers))
    style = "" if prompt.style == "recipe" else f" ({prompt.style})"
    return f"prompt: {form}" + (f"; answers {answers}{style}" if answers else "")


def head_text(head: HeadOrigin) -> str:
    """Where a trained head comes from, in a line for the console."""
    if not head.new:
        return f"head: {head.reason}"
    return f"head: {' and '.join(head.new)} new, drawn from the seed: {head.reason}"


def scores_text(scores: dict[str, SplitScore]) -> str:
    """Accuracies of several splits in a line for the console."""
    return ", ".join(f"{split} {percent(score.accuracy)}" for split, score in scores.items())
