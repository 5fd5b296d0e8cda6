"""Finds the tokens by which the answers to a prompt are told apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

Tokenize = Callable[[Sequence[str]], list[list[int]]]
"""Texts -> the tokens of each as the model reads it, with nothing behind the text."""


class Indistinct(Exception):  # noqa: N818 - an outcome of trying answers, not a fault of the job
    """Answers that do not serve. `faults` says why, in a line for each of them."""

    def __init__(self, faults: Sequence[str], merges: bool) -> None:
        super().__init__("; ".join(faults))
        self.faults = list(faults)
        self.merges = merges
        """Whether an answer changes the tokens of the prompt before it."""


@dataclass(frozen=True)
class AnswerTokens:
    """What follows a prompt in tokens."""

    start: tuple[int, ...]
    """Tokens that all answers begin with."""
    labels: tuple[int, ...]
    """For each label, the first token after `start`."""


def answer_tokens(
    tokenize: Tokenize, tokenizer: Any, prompts: Sequence[str], verbalizers: Sequence[str]
) -> AnswerTokens:
    """Return the tokens of the answers, derived in context: from prompt plus verbalizer.

    The tokens of a text depend on what precedes it. Raises Indistinct that names every verbalizer
    whose token is not its own, or not the same after each prompt.
    """
    bare = tokenize(prompts)
    tails = [_tails(tokenize, prompts, bare, text) for text in verbalizers]
    merging = [
        f"{text!r} merges with the prompt before it"
        for text, of_text in zip(verbalizers, tails, strict=True)
        if of_text is None
    ]
    if merging:
        raise Indistinct(merging, merges=True)
    found = {_deciding(of_prompt) for of_prompt in zip(*(t for t in tails if t), strict=True)}
    if len(found) > 1:
        raise Indistinct([f"{_quoted(verbalizers)} differ in their tokens by prompt"], merges=False)
    start, firsts = found.pop()
    if tokenizer.unk_token_id in start:
        raise Indistinct([f"{_quoted(verbalizers)} are not in the vocabulary"], merges=False)
    faults = _faults(tokenizer, verbalizers, firsts)
    if faults:
        raise Indistinct(faults, merges=False)
    return AnswerTokens(start, tuple(first for first in firsts if first is not None))


def _tails(
    tokenize: Tokenize, prompts: Sequence[str], bare: Sequence[list[int]], text: str
) -> list[tuple[int, ...]] | None:
    """What an answer adds to the tokens of each prompt; None if it changes those of one."""
    wholes = tokenize([prompt + text for prompt in prompts])
    pairs = list(zip(bare, wholes, strict=True))
    if any(whole[: len(prompt)] != prompt for prompt, whole in pairs):
        return None
    return [tuple(whole[len(prompt) :]) for prompt, whole in pairs]


def _deciding(
    tails: Sequence[tuple[int, ...]],
) -> tuple[tuple[int, ...], tuple[int | None, ...]]:
    """What all answers begin with, and the next token of each; None for one that ends there."""
    columns = zip(*tails, strict=False)
    start = tuple(column[0] for column in takewhile(lambda c: len(set(c)) == 1, columns))
    return start, tuple(tail[len(start)] if len(tail) > len(start) else None for tail in tails)


def _faults(tokenizer: Any, verbalizers: Sequence[str], firsts: Sequence[int | None]) -> list[str]:
    faults = []
    for number, (text, first) in enumerate(zip(verbalizers, firsts, strict=True)):
        earlier = verbalizers[firsts.index(first)]
        if first is None:
            faults.append(f"{text!r} ends where the other answers go on")
        elif first == tokenizer.unk_token_id:
            faults.append(f"{text!r} is not in the vocabulary")
        elif firsts.index(first) < number:
            piece = tokenizer.decode([first])
            faults.append(f"{text!r} begins with the same token as {earlier!r} ({piece!r})")
    return faults


def _quoted(texts: Sequence[str]) -> str:
    return ", ".join(map(repr, texts))
