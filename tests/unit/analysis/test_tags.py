"""Facts about the words of two texts."""

from __future__ import annotations

import pytest

from nlijob.analysis.tags import TAGS, compare_words, text_tags
from tests.effort import lines_run

APPLIES = [
    ("negation", "A man sleeps", "A man does not sleep"),
    ("negation", "A man with no shirt", "A man"),
    ("negation", "He isn\u2019t here", "He is here"),
    ("numbers", "Two dogs run", "3 dogs run"),
    ("numbers", "Two men and three boys", "Two men and four boys"),
    ("numbers", "Twenty-five people", "26 people"),
    ("numbers", "2,000 people", "3,000 people"),
    ("gender", "A man eats", "The girl eats"),
    ("gender", "The man's hat", "The woman\u2019s hat"),
    ("gender", "Her dog", "He has a dog"),
    ("colours", "A red car", "A blue car"),
    ("colours", "A red and gray car", "A red and black car"),
    ("absolute", "People wait", "Everyone waits"),
    ("absolute", "Kids know each other", "All kids know each other"),
    ("high-overlap", "Two dogs run in the snow", "Dogs run"),
    ("low-overlap", "A man strums", "Music plays"),
    ("removed", "A young man is playing a guitar", "A man is playing"),
    ("added", "A man plays a guitar on a stage", "A sad man plays a guitar"),
    ("added", "A man plays", "A man plays the guitar"),
    ("order", "A dog chases a cat", "A cat chases a dog"),
    ("long-premise", "word " * 25, "word"),
]
DOES_NOT_APPLY = [
    ("negation", "He does not run", "He never runs"),
    ("negation", "A nobleman notes it", "He writes"),
    ("numbers", "Two dogs", "2 dogs"),
    ("numbers", "Dogs", "Two dogs"),
    ("numbers", "Two men and three boys", "Three boys"),
    ("numbers", "Two dogs, one of them wet", "One dog is wet"),
    ("numbers", "Twenty-five people", "25 people"),
    ("numbers", "Twenty five people", "25 people"),
    ("numbers", "Two hundred and fifty people", "250 people"),
    ("numbers", "2,000 people and 3 dogs", "2000 people"),
    ("numbers", "Two thousand people", "2,000 people"),
    ("numbers", "A dozen eggs", "12 eggs"),
    ("numbers", "Two dozen eggs", "24 eggs"),
    ("numbers", "A couple of boys and 3 girls", "Two boys"),
    ("numbers", "One man and 3 dogs", "1 man"),
    ("numbers", "The 3rd man and two dogs", "2 dogs"),
    ("gender", "Women groom a dog", "A woman eats"),
    ("gender", "A woman mans the desk", "A woman works"),
    ("gender", "The nun and a man", "The nun"),
    ("gender", "A man and an actress", "A woman"),
    ("gender", "A man and an actress", "A man"),
    ("negation", "He mustn't run", "He does not run"),
    ("gender", "A man and a woman eat", "A woman eats"),
    ("gender", "A man eats", "A person eats"),
    ("gender", "A human mandate", "A woman"),
    ("colours", "A red and blue car", "A red car"),
    ("colours", "A gray car", "A grey car"),
    ("colours", "A car", "A red car"),
    ("absolute", "Two boys", "Two boys look at each other"),
    ("absolute", "A man sleeps", "A man sleeps all day"),
    ("absolute", "All boys run", "All boys jump"),
    ("absolute", "A boy drinks", "A boy holds a cup in both hands"),
    ("high-overlap", "It is a dog", "It is"),
    ("low-overlap", "It is a dog", "It is"),
    ("removed", "A man plays", "A man plays"),
    ("removed", "A man plays a guitar", "Plays a man"),
    ("removed", "A man", ""),
    ("added", "People shopping", "People are shopping"),
    ("added", "A man is sleeping", "A man is running"),
    ("added", "A man sleeps on a bench", "A tall man sleeps on a chair"),
    ("added", "Dogs", "Big wet dogs"),
    ("added", "A man", "A man buys four large green apples"),
    ("order", "A dog", "a DOG!"),
    ("order", "A dog sees a dog", "A dog sees dog"),
    ("long-premise", "word " * 24, "word " * 50),
]


@pytest.mark.parametrize(("key", "premise", "hypothesis"), APPLIES)
def test_a_tag_is_given_where_it_applies(key: str, premise: str, hypothesis: str) -> None:
    assert key in text_tags(premise, hypothesis)


@pytest.mark.parametrize(("key", "premise", "hypothesis"), DOES_NOT_APPLY)
def test_a_tag_is_not_given_where_it_does_not_apply(
    key: str, premise: str, hypothesis: str
) -> None:
    assert key not in text_tags(premise, hypothesis)


def test_every_tag_is_tried_both_ways() -> None:
    keys = [tag.key for tag in TAGS]
    assert {key for key, *_ in APPLIES} == {key for key, *_ in DOES_NOT_APPLY} == {*keys}
    assert len(keys) == len({*keys})


def test_tags_come_in_the_order_of_their_list() -> None:
    keys = text_tags("Two men in red do not run", "All three women in blue run")
    order = [tag.key for tag in TAGS]
    assert keys == tuple(sorted(keys, key=order.index))
    assert len(keys) >= 5


def test_words_in_only_one_text_are_found_ignoring_case() -> None:
    found = compare_words("A Man plays a guitar", "a man plays music")
    assert found.only_in_premise == ("guitar",)
    assert found.only_in_hypothesis == ("music",)
    assert found.overlap == pytest.approx(2 / 3)


def test_overlap_is_unknown_if_the_hypothesis_has_no_content_words() -> None:
    assert compare_words("A man", "It is.").overlap is None


def test_both_apostrophes_make_the_same_word() -> None:
    assert compare_words("He doesn\u2019t run", "He doesn't run").only_in_hypothesis == ()


@pytest.mark.parametrize("texts", [("", ""), ("رجل يقرأ", "🙂 \u0000 <b>"), ("\u202e", "漢字")])
def test_other_scripts_are_tagged_without_error(texts: tuple[str, str]) -> None:
    assert {*text_tags(*texts)} <= {tag.key for tag in TAGS}


@pytest.mark.parametrize("words", [2500, 140])
def test_texts_of_ten_thousand_characters_are_bounded_work(words: int) -> None:
    texts = ("dog " * words, "dog cat " * (words // 2))
    assert lines_run(lambda: text_tags(*texts)) < 5_000_000  # every pair of words would be more
