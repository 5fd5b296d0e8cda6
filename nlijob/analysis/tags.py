"""Tags: facts about the words of a premise and a hypothesis.

Tags depend only on the two texts, so that they divide the test rows in the same way for every
model. Words are compared as written, ignoring case ("dog" and "dogs" are different words); only
numbers are the same in words and in digits. A word is named as missing from a text if the text has
no form of it. The word lists are English; in other languages, the tags that need them do not apply,
while the others still do.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from nlijob.analysis.word_forms import form, may_stand, only_here, stated, words

REMEMBERED = 1 << 15
"""Size of the cache of compared texts: slices, cases and explanations compare the same ones."""


def _word_set(words: str) -> frozenset[str]:
    return frozenset(words.split())


NEGATIONS = _word_set(
    "no not never nobody none nothing neither nor nowhere without cannot isn't aren't wasn't "
    "weren't don't doesn't didn't won't can't couldn't wouldn't shouldn't hasn't haven't hadn't "
    "mustn't needn't shan't ain't isnt arent wasnt werent dont doesnt didnt wont cant couldnt "
    "wouldnt shouldnt hasnt havent hadnt"
)
ABSOLUTES = _word_set("all every everyone everybody everything always only both each")
NO_ABSOLUTE = re.compile(
    r"\b(?:each\s+other|both\s+(?:hands|arms|feet|legs|sides|ways)"
    r"|all\s+(?:day|night|over|around|in\s+\w+|black|white|red|blue|green))\b"
)
"""Phrases in which such a word is not a universal claim."""
STOPWORDS = _word_set(
    "a an the this that these those is are was were be been being am do does did has have had of "
    "in on at to from by with for and or but as it its his her their he she they him them there "
    "here who which what while into onto over under up down out off near next some"
)
MALE = _word_set(
    "man men boy boys he him his himself male males gentleman gentlemen guy guys lad lads father "
    "fathers dad dads daddy son sons brother brothers husband husbands grandfather grandfathers "
    "grandpa grandson grandsons uncle uncles nephew nephews bridegroom king kings prince princes "
    "boyfriend boyfriends waiter waiters actor actors monk monks businessman businessmen fireman "
    "firemen policeman policemen fisherman fishermen"
)
FEMALE = _word_set(
    "woman women girl girls she her hers herself female females lady ladies gal gals mother "
    "mothers mom moms mommy mum mums daughter daughters sister sisters wife wives grandmother "
    "grandmothers grandma granddaughter granddaughters aunt aunts niece nieces bride brides queen "
    "queens princess princesses girlfriend girlfriends waitress waitresses actress actresses nun "
    "nuns businesswoman businesswomen policewoman policewomen ballerina ballerinas"
)
COLOURS = _word_set(
    "red blue green yellow orange purple pink brown black white grey violet beige tan maroon "
    "turquoise teal blond brunette"
)
COLOUR_SPELLINGS = {"gray": "grey", "blonde": "blond"}
HIGH_OVERLAP = 0.8
"""Overlap is high if at least this share of the hypothesis's content words is in the premise."""
LOW_OVERLAP = 0.25
"""Overlap is low up to this share."""
LONG_PREMISE = 25
"""Fewest words of a long premise; fixed, so that runs can be compared."""
MOST_ADDED = 3
"""Most new words of a hypothesis that counts as the premise with words added."""
MOST_ALIGNED = 20_000
"""Texts with more pairs of words than this are not aligned, to bound the time."""


@dataclass(frozen=True)
class Tag:
    """A property of a pair of texts."""

    key: str
    name: str
    meaning: str


TAGS = (
    Tag("negation", "negation in one text only", "only one text has a word such as “not”"),
    Tag(
        "numbers",
        "numbers differ",
        "each text has a number, in words or digits, that the other does not",
    ),
    Tag(
        "gender",
        "gender words differ",
        "one text has words such as “man” and none such as “woman”, the other the reverse",
    ),
    Tag("colours", "colour words differ", "each text has a colour word that the other does not"),
    Tag(
        "absolute",
        "absolute word added",
        "the hypothesis has a word such as “all” that the premise does not have",
    ),
    Tag(
        "high-overlap",
        "high word overlap",
        "80 % or more of the hypothesis's content words are also in the premise, as written",
    ),
    Tag(
        "low-overlap",
        "low word overlap",
        "25 % or less of the hypothesis's content words are also in the premise, as written",
    ),
    Tag(
        "removed",
        "premise with words removed",
        "the hypothesis is the premise with some of its words removed",
    ),
    Tag(
        "added",
        "words added",
        "up to 3 words are added to the premise; some may also be removed, but none replaced",
    ),
    Tag("order", "same words in a different order", "both texts have exactly the same words"),
    Tag("long-premise", "long premise", "the premise has 25 words or more"),
)
TAG_NAMES = {tag.key: tag.name for tag in TAGS}


@dataclass(frozen=True)
class Words:
    """Comparison of the words of a premise and a hypothesis; all in lower case, in order."""

    premise: tuple[str, ...]
    hypothesis: tuple[str, ...]
    overlap: float | None
    """Share of the hypothesis's content words that are also in the premise; None if it has none."""
    negation_differs: tuple[str, ...]
    """Negation words, if only one of the texts has any."""
    absolutes_added: tuple[str, ...]
    """Words such as "all" that are only in the hypothesis."""
    numbers_differ: bool
    """Whether each text has a number that the other does not."""
    tags: tuple[str, ...]
    """Keys of `TAGS`, in their order."""

    @property
    def only_in_premise(self) -> tuple[str, ...]:
        """Content words of which the hypothesis has no form."""
        return _missing(self.premise, self.hypothesis)

    @property
    def only_in_hypothesis(self) -> tuple[str, ...]:
        """Content words of which the premise has no form."""
        return _missing(self.hypothesis, self.premise)


def text_tags(premise: str, hypothesis: str) -> tuple[str, ...]:
    """Keys of the `TAGS` that apply to the two texts, in the order of `TAGS`."""
    return compare_words(premise, hypothesis).tags


@functools.lru_cache(maxsize=REMEMBERED)
def compare_words(premise: str, hypothesis: str) -> Words:
    """Compare the words of two texts, ignoring case."""
    premise_words, hypothesis_words = words(premise), words(hypothesis)
    before, after = _distinct(premise_words), _distinct(hypothesis_words)
    content_before, content_after = _content(before), _content(after)
    known = {*content_before}
    shared = [word for word in content_after if word in known]
    overlap = len(shared) / len(content_after) if content_after else None
    negation = _on_one_side(before, after)
    absolutes = tuple(w for w in _absolutes(hypothesis) if w not in before)
    numbers_differ = _numbers_differ(premise_words, hypothesis_words)
    holds = {
        "negation": bool(negation),
        "numbers": numbers_differ,
        "gender": _gender_swapped(_owners(before), _owners(after)),
        "colours": _swapped(_colours(before), _colours(after)),
        "absolute": bool(absolutes),
        "high-overlap": is_high(overlap),
        "low-overlap": is_low(overlap),
        "removed": _words_removed(premise_words, hypothesis_words),
        "added": _words_added(premise_words, hypothesis_words),
        "order": _another_order(premise_words, hypothesis_words),
        "long-premise": len(premise_words) >= LONG_PREMISE,
    }
    return Words(
        premise=premise_words,
        hypothesis=hypothesis_words,
        overlap=overlap,
        negation_differs=negation,
        absolutes_added=absolutes,
        numbers_differ=numbers_differ,
        tags=tuple(tag.key for tag in TAGS if holds[tag.key]),
    )


def is_high(overlap: float | None) -> bool:
    """Whether nearly all of the hypothesis's content words are also in the premise."""
    return overlap is not None and overlap >= HIGH_OVERLAP


def is_low(overlap: float | None) -> bool:
    """Whether hardly any of the hypothesis's content words are also in the premise."""
    return overlap is not None and overlap <= LOW_OVERLAP


def _distinct(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found))


def _content(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for word in found if word not in STOPWORDS)


def _on_one_side(before: Iterable[str], after: Iterable[str]) -> tuple[str, ...]:
    left = tuple(word for word in before if word in NEGATIONS)
    right = tuple(word for word in after if word in NEGATIONS)
    return () if left and right else left or right


def _absolutes(text: str) -> tuple[str, ...]:
    rest = NO_ABSOLUTE.sub(" ", text.casefold())
    return tuple(word for word in _distinct(words(rest)) if word in ABSOLUTES)


def _missing(own: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """The own content words that the other text has no form of; "he's" and the like have none."""
    only = only_here(own, other)
    content = _content(_distinct(own))
    return tuple(word for word in content if word in only and form(word) not in STOPWORDS)


def _numbers_differ(before: tuple[str, ...], after: tuple[str, ...]) -> bool:
    """Whether each text states a number that the other neither states nor may mean."""
    first, second = stated(before), stated(after)
    return bool(first - second - may_stand(after) and second - first - may_stand(before))


def _owners(found: Iterable[str]) -> set[str]:
    """The words without their possessive endings."""
    return {word.removesuffix("'s") for word in found}


def _colours(found: Iterable[str]) -> frozenset[str]:
    return COLOURS & {COLOUR_SPELLINGS.get(word, word) for word in found}


def _swapped(before: frozenset[str], after: frozenset[str]) -> bool:
    """Whether each side has an item that the other does not."""
    return bool(before - after and after - before)


def _gender_swapped(before: set[str], after: set[str]) -> bool:
    """Whether one text has only male words and the other only female ones."""
    left = (bool(before & MALE), bool(before & FEMALE))
    right = (bool(after & MALE), bool(after & FEMALE))
    return {left, right} == {(True, False), (False, True)}


def _words_removed(before: Sequence[str], after: Sequence[str]) -> bool:
    return 0 < len(after) < len(before) and _is_subsequence(after, before)


def _words_added(before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether the hypothesis keeps the premise's words in order, replaces none and adds a few.

    At least one of the added words must be a content word, so that "People shopping" and "People
    are shopping" do not count.
    """
    new = {*_content(after)} - {*before}
    if not 0 < len(new) <= MOST_ADDED or len(before) * len(after) > MOST_ALIGNED:
        return False
    steps = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    added = [word for kind, _, _, i, j in steps if kind == "insert" for word in after[i:j]]
    replaced = any(kind == "replace" for kind, *_ in steps)
    return 0 < len(added) <= MOST_ADDED and not replaced and 2 * len(added) <= len(after)


def _another_order(before: Sequence[str], after: Sequence[str]) -> bool:
    return before != after and Counter(before) == Counter(after)


def _is_subsequence(part: Iterable[str], whole: Iterable[str]) -> bool:
    rest = iter(whole)
    return all(word in rest for word in part)
