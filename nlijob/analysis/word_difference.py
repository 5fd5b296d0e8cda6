"""Where two texts differ, word by word, for highlighting."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Literal

SegmentKind = Literal["same", "only here"]
MOST_ALIGNED = 40_000
"""Words of one text times words of the other up to which they are aligned in order."""
JOINERS = "'\u2019\u200c\u200d\ufe0e\ufe0f"
"""Apostrophes, and what holds letters and emoji together: inside a word, never its edge alone."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a text."""

    text: str
    kind: SegmentKind


@dataclass(frozen=True)
class WordDifference:
    """Two texts cut into stretches; the stretches of each, put together, are the text."""

    premise: tuple[Segment, ...]
    hypothesis: tuple[Segment, ...]


def word_difference(premise: str, hypothesis: str) -> WordDifference:
    """The stretches of both texts that stand in one only.

    Words are compared in order, without regard to case, to the kind of apostrophe or to how an
    accent is encoded. Spaces and punctuation are never a difference of their own: they belong to
    the stretch of one kind that goes on over them, otherwise they are "same". A writing without
    spaces counts as one word up to the next punctuation mark. Where the texts are very long (more
    than `MOST_ALIGNED` pairs of words after what they have in common at both ends) order is left
    out and a word is "same" as often as both texts have it, so that time is bounded.
    """
    before, after = _pieces(premise), _pieces(hypothesis)
    keys_before = [_key(piece) for piece, is_word in before if is_word]
    keys_after = [_key(piece) for piece, is_word in after if is_word]
    same_before, same_after = _same_words(keys_before, keys_after)
    return WordDifference(_segments(before, same_before), _segments(after, same_after))


def _pieces(text: str) -> list[tuple[str, bool]]:
    """Words and what stands between them, in order, with whether each is a word."""
    runs = ["".join(run) for _, run in groupby(text, _in_word)]
    pieces = groupby(runs, lambda run: _in_word(run[0]) and bool(run.strip(JOINERS)))
    return [("".join(run), is_word) for is_word, run in pieces]


def _in_word(character: str) -> bool:
    """Whether it is part of a word: a letter, mark, number or symbol (emoji are symbols)."""
    return character in JOINERS or unicodedata.category(character)[0] in "LMNS"


def _key(word: str) -> str:
    return unicodedata.normalize("NFC", word.replace("\u2019", "'").casefold()).strip("'")


def _same_words(
    before: Sequence[str], after: Sequence[str]
) -> tuple[Sequence[bool], Sequence[bool]]:
    """For each word of both texts whether the other has it too."""
    start = _shared_start(before, after)
    end = _shared_start(before[start:][::-1], after[start:][::-1])
    middle_before = before[start : len(before) - end]
    middle_after = after[start : len(after) - end]
    if len(middle_before) * len(middle_after) > MOST_ALIGNED:
        middle = (_in_both(middle_before, middle_after), _in_both(middle_after, middle_before))
    else:
        middle = _aligned(middle_before, middle_after)
    same_before, same_after = ([True] * start + part + [True] * end for part in middle)
    return same_before, same_after


def _shared_start(before: Sequence[str], after: Sequence[str]) -> int:
    """How many words both begin with."""
    pairs = enumerate(zip(before, after, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(before), len(after)))


def _aligned(before: Sequence[str], after: Sequence[str]) -> tuple[list[bool], list[bool]]:
    same_before, same_after = [False] * len(before), [False] * len(after)
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for first, second, size in matcher.get_matching_blocks():
        same_before[first : first + size] = [True] * size
        same_after[second : second + size] = [True] * size
    return same_before, same_after


def _in_both(own: Sequence[str], other: Sequence[str]) -> list[bool]:
    left = Counter(other)
    found = []
    for word in own:
        found.append(left[word] > 0)
        left[word] -= 1
    return found


def _segments(pieces: Sequence[tuple[str, bool]], same: Sequence[bool]) -> tuple[Segment, ...]:
    kinds = _kinds(pieces, same)
    marked = zip(pieces, kinds, strict=True)
    return tuple(
        Segment("".join(text for (text, _), _ in run), kind)
        for kind, run in groupby(marked, lambda item: item[1])
    )


def _kinds(pieces: Sequence[tuple[str, bool]], same: Sequence[bool]) -> Iterator[SegmentKind]:
    """The kind of every piece; what stands between two words that are only here is too."""
    of_words = iter(same)
    words = [next(of_words) if is_word else None for _, is_word in pieces]
    for place, own in enumerate(words):
        around = words[max(0, place - 1) : place + 2]
        only_here = own is False or (own is None and around.count(False) == 2)
        yield "only here" if only_here else "same"
