"""The special tokens of a tokenizer: those that it adds to a text, and those that a text writes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

PROBE = "a"
LOOKS_SPECIAL = re.compile(r"</?s>|<(?:bos|eos|pad)>|\[(?:CLS|SEP|PAD)\]|<\|\w+\|>")
"""Spellings of special tokens; a tokenizer that does not know one reads it as plain text."""


@dataclass(frozen=True)
class Added:
    """The tokens that a tokenizer puts around a text."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def added_tokens(tokenizer: Any) -> Added:
    """Return what the tokenizer adds to a single text, found by trying."""
    bare = list(tokenizer(PROBE, add_special_tokens=False)["input_ids"])
    whole = list(tokenizer(PROBE)["input_ids"])
    if not bare:
        return Added((), ())
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return Added(tuple(whole[:start]), tuple(whole[start + len(bare) :]))
    return Added((), ())


def special_texts(tokenizer: Any) -> list[str]:
    """Return how the tokenizer's special tokens are written, the longest first."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    texts = {str(token) for token in added if token.special} | set(tokenizer.all_special_tokens)
    return sorted(filter(None, texts), key=lambda text: (-len(text), text))


def written_tokens(tokenizer: Any, text: str) -> list[str]:
    """Return the special tokens that a text writes, in its order."""
    known = special_texts(tokenizer)
    if not known:
        return []
    found = re.findall("|".join(map(re.escape, known)), text)
    return list(dict.fromkeys(found))


def unknown_tokens(tokenizer: Any, text: str) -> list[str]:
    """Return what looks like a special token in a text, and is plain text to the tokenizer."""
    known = set(special_texts(tokenizer))
    found = (match[0] for match in LOOKS_SPECIAL.finditer(text))
    return [one for one in dict.fromkeys(found) if one not in known]
