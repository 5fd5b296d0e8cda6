"""Word-by-word difference of two texts."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from nlijob.analysis.word_difference import Segment, word_difference
from tests.effort import lines_run


def marked(segments: tuple[Segment, ...]) -> str:
    return "".join(f"[{s.text}]" if s.only_here else s.text for s in segments)


def both(premise: str, hypothesis: str) -> tuple[str, str]:
    found = word_difference(premise, hypothesis)
    return marked(found.premise), marked(found.hypothesis)


@pytest.mark.parametrize(
    ("premise", "hypothesis", "expected"),
    [
        ("A man sleeps.", "A man eats.", ("A man [sleeps].", "A man [eats].")),
        ("A man", "a MAN!", ("A man", "a MAN!")),
        ("A tall old man sits", "A man sits", ("A [tall old] man sits", "A man sits")),
        ("red, blue", "green", ("[red, blue]", "[green]")),
        ("He doesn\u2019t", "he doesn't", ("He doesn\u2019t", "he doesn't")),
        ("'hello'  there", "hello there", ("'hello'  there", "hello there")),
        ("caf\u00e9", "cafe\u0301", ("caf\u00e9", "cafe\u0301")),
        ("a dog", "", ("[a dog]", "")),
        ("", "", ("", "")),
        ("?!", "...", ("?!", "...")),
        ("go 🙂", "go 🙃", ("go [🙂]", "go [🙃]")),
        ("x 👩‍👩‍👧 y", "x 👩 y", ("x [👩‍👩‍👧] y", "x [👩] y")),
        ("रोटी हिन्दी", "हिन्दी", ("[रोटी] हिन्दी", "हिन्दी")),
        ("رجل يقرأ كتابا", "رجل يقرأ", ("رجل يقرأ [كتابا]", "رجل يقرأ")),
        ("car - ' - bus x", "x", ("[car - ' - bus] x", "x")),
        ("A dog chases a cat", "A cat chases a dog", None),
    ],
)
def test_words_in_only_one_text_are_marked(
    premise: str, hypothesis: str, expected: tuple[str, str] | None
) -> None:
    found = both(premise, hypothesis)
    if expected is None:  # a swap is a difference, though both have the same words
        assert "[" in found[0]
        assert "[" in found[1]
    else:
        assert found == expected


ALPHABET = "aAbB 'é\u0301\u200d\u202e🙂👩-,.\n\tخب漢1_<>\u0000"


def test_segments_add_up_to_the_texts_and_alternate_in_kind() -> None:
    chance = random.Random(8)
    for _ in range(500):
        texts = ["".join(chance.choices(ALPHABET, k=chance.randrange(40))) for _ in range(2)]
        found = word_difference(*texts)
        for text, segments in zip(texts, (found.premise, found.hypothesis), strict=True):
            assert "".join(segment.text for segment in segments) == text
            kinds = [segment.only_here for segment in segments]
            assert all(one != following for one, following in pairwise(kinds))


def test_identical_texts_do_not_differ() -> None:
    text = "One, two; three? " * 600
    assert word_difference(text, text).premise == (Segment(text, only_here=False),)


def test_very_long_texts_are_compared_without_order() -> None:
    left = " ".join(f"w{i}" for i in range(300))
    right = " ".join([*(f"w{i}" for i in reversed(range(300))), "more"])
    assert both(left, right) == (left, right.replace("more", "[more]"))
    assert both(left, f"{right} w7")[1] == right.replace("more", "[more w7]")


@pytest.mark.parametrize(
    ("premise", "hypothesis"),
    [
        ("a " * 5000, "a b " * 2500),
        ("a " * 200, "a b " * 100),
        ("a b " * 100, "b a " * 100),
        ("x" * 10_000, "y" * 10_000),
        ("'" * 10_000, "' " * 5000),
    ],
)
def test_ten_thousand_characters_are_bounded_work(premise: str, hypothesis: str) -> None:
    assert lines_run(lambda: word_difference(premise, hypothesis)) < 10_000_000
    found = word_difference(premise, hypothesis)
    assert "".join(segment.text for segment in found.premise) == premise
