"""Word-by-word difference of two texts, for highlighting."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby

MOST_ALIGNED = 40_000
"""Texts with more pairs of words than this are compared without regard to order."""
JOINERS = "'\u2019\u200c\u200d\ufe0e\ufe0f"
"""Apostrophes and joiners of letters and emoji: part of a word, but never a word on their own."""


@dataclass(frozen=True)
class Segment:
    """A segment of a text; `only_here` if the other text does not contain it."""

    text: str
    only_here: bool


@dataclass(frozen=True)
class WordDifference:
    """Two texts cut into segments; the segments of each text add up to it."""

    premise: tuple[Segment, ...]
    hypothesis: tuple[Segment, ...]


def word_difference(premise: str, hypothesis: str) -> WordDifference:
    """Cut both texts into segments that are in both texts or in only one of them.

    Words are compared in order, ignoring case, the kind of apostrophe and the encoding of accents.
    Spaces and punctuation are never a difference by themselves: they are only in one text if the
    words on both sides are. In scripts without spaces, a word reaches to the
    next punctuation mark. In very long texts (more than `MOST_ALIGNED` pairs of words between their
    common beginning and end) order is ignored to bound the time: a word is in
    both texts as often as each of them contains it.
    """
    before, after = _pieces(premise), _pieces(hypothesis)
    keys_before = [_key(piece) for piece, is_word in before if is_word]
    keys_after = [_key(piece) for piece, is_word in after if is_word]
    same_before, same_after = _same_words(keys_before, keys_after)
    return WordDifference(_segments(before, same_before), _segments(after, same_after))


def _pieces(text: str) -> list[tuple[str, bool]]:
    """Words and the text between them, in order, each with whether it is a word."""
    runs = ["".join(run) for _, run in groupby(text, _in_word)]
    pieces = groupby(runs, lambda run: _in_word(run[0]) and bool(run.strip(JOINERS)))
    return [("".join(run), is_word) for is_word, run in pieces]


def _in_word(character: str) -> bool:
    """Whether a character is part of a word: letter, mark, number or symbol (such as emoji)."""
    return character in JOINERS or unicodedata.category(character)[0] in "LMNS"


def _key(word: str) -> str:
    return unicodedata.normalize("NFC", word.replace("\u2019", "'").casefold()).strip("'")


def _same_words(
    before: Sequence[str], after: Sequence[str]
) -> tuple[Sequence[bool], Sequence[bool]]:
    """For each word of both texts, whether the other text has it too."""
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
    """Number of words that both texts begin with."""
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
    marked = zip(pieces, _only_here(pieces, same), strict=True)
    return tuple(
        Segment("".join(text for (text, _), _ in run), only_here)
        for only_here, run in groupby(marked, lambda item: item[1])
    )


def _only_here(pieces: Sequence[tuple[str, bool]], same: Sequence[bool]) -> Iterator[bool]:
    """Whether each piece is only in this text; so is the text between two such words."""
    of_words = iter(same)
    words = [next(of_words) if is_word else None for _, is_word in pieces]
    for place, own in enumerate(words):
        around = words[max(0, place - 1) : place + 2]
        yield own is False or (own is None and around.count(False) == 2)
