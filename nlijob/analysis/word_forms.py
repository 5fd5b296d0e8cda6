"""Words, their forms and the numbers of a text, so that nothing false is said about two texts.

Two forms of a word ("dog" and "dogs", "grey" and "gray", "three" and "3") are different words, but
a sentence that names one of them as missing would mislead. `form` gives related forms the same key.
It is generous: it may take two words for one, so a word is left out rather than named wrongly. The
rules are English; in other languages a word is a form of itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u0060\u00b4\uff07", "'"))
INVISIBLE = str.maketrans(dict.fromkeys("\u00ad\u200b\u2060\ufeff", ""))
UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBERS = {
    **{word: value for value, word in enumerate(UNITS.split())},
    **{word: 10 * value for value, word in enumerate(TENS.split(), start=2)},
}
FRACTIONS = ((("a",), "1"), (("an",), "1"), (("half",), "0.5"), (("half", "a"), "0.5"))
"""Words before "dozen", "hundred" and the like that count them."""
BEGINNINGS = {*NUMBERS, "a", "an", "half"}
"""Words that a number can begin with."""
MULTIPLIERS = {"dozen": 12, "hundred": 100, "thousand": 1_000, "million": 1_000_000}
VAGUE = {"one": 1, "single": 1, "couple": 2, "pair": 2, "both": 2, "twice": 2, "dozen": 12}
"""Words that may stand for a number: none that another text states differs from them."""
IRREGULAR = {
    base: forms.split()
    for base, forms in {
        "man": "men",
        "woman": "women",
        "child": "children",
        "person": "people persons",
        "foot": "feet",
        "tooth": "teeth",
        "mouse": "mice",
        "goose": "geese",
        "knife": "knives",
        "wife": "wives",
        "half": "halves",
        "blow": "blew blown",
        "break": "broke broken",
        "bring": "brought",
        "build": "built",
        "buy": "bought",
        "catch": "caught",
        "choose": "chose chosen",
        "come": "came",
        "die": "dying",
        "do": "did done does doing",
        "draw": "drew drawn",
        "drink": "drank drunk",
        "drive": "drove driven",
        "eat": "ate eaten",
        "fall": "fell fallen",
        "feel": "felt",
        "fight": "fought",
        "find": "found",
        "fly": "flew flown",
        "get": "got gotten",
        "give": "gave given",
        "go": "went gone goes going",
        "grow": "grew grown",
        "have": "has had",
        "hear": "heard",
        "hide": "hid hidden",
        "hold": "held",
        "know": "knew known",
        "lead": "led",
        "leave": "left",
        "lie": "lay lain lying",
        "lose": "lost",
        "make": "made",
        "meet": "met",
        "pay": "paid",
        "ride": "rode ridden",
        "ring": "rang rung",
        "run": "ran",
        "say": "said",
        "see": "saw seen",
        "sell": "sold",
        "send": "sent",
        "shake": "shook shaken",
        "shoot": "shot",
        "sing": "sang sung",
        "sit": "sat",
        "sleep": "slept asleep",
        "speak": "spoke spoken",
        "spend": "spent",
        "stand": "stood",
        "sweep": "swept",
        "swim": "swam swum",
        "take": "took taken",
        "teach": "taught",
        "tell": "told",
        "think": "thought",
        "throw": "threw thrown",
        "tie": "tying",
        "use": "using",
        "wear": "wore worn",
        "win": "won",
        "write": "wrote written",
    }.items()
}
SPELLINGS = {
    "aeroplane": "airplane",
    "aluminium": "aluminum",
    "doughnut": "donut",
    "grey": "gray",
    "jewellery": "jewelry",
    "kerb": "curb",
    "mould": "mold",
    "moustache": "mustache",
    "mum": "mom",
    "plough": "plow",
    "pyjamas": "pajamas",
    "tyre": "tire",
}
"""British spellings that the rules do not cover -> American ones."""
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
BASES = {form: base for base, forms in IRREGULAR.items() for form in forms}


@dataclass(frozen=True)
class Number:
    """A number of a text, with the words that stand for it."""

    value: str
    words: tuple[str, ...]


def plain(text: str) -> str:
    """A text in lower case, with one encoding of each letter and one kind of apostrophe."""
    return unicodedata.normalize(
        "NFKC", text.translate(APOSTROPHES).translate(INVISIBLE)
    ).casefold()


def words(text: str) -> tuple[str, ...]:
    """All words of a text in order, in lower case, with straight apostrophes."""
    found = re.findall(r"\d+(?:[.,]\d+)+(?!\w)|\w+(?:'\w+)*", plain(text))
    return tuple(THOUSANDS.sub("", word) if "," in word else word for word in found)


def form(word: str) -> str:
    """A key that related forms of a word share; `word` is one of `words`."""
    base = re.sub(r"'(?:s|re|ll|ve|d|m)$", "", word)
    base = BASES.get(base, base)
    base = SPELLINGS.get(base, base)
    for ending, new in (("ies", "y"), ("ied", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", "")):
        if base.endswith(ending) and len(base) - len(ending) >= 3 and not base.endswith("ss"):
            base = base.removesuffix(ending) + new
            break
    base = BASES.get(base, SPELLINGS.get(base, base))
    base = re.sub(r"(?<=..)ie$", "y", base)
    base = re.sub(r"(?<=..)our", "or", base)
    base = re.sub(r"(?<=...)is(?=$|e$)", "iz", base)
    base = re.sub(r"tre$|tr$", "ter", base)
    base = base.removesuffix("e") if len(base) > 3 else base
    return re.sub(r"(\w)\1$", r"\1", base)


def known_forms(text_words: Sequence[str]) -> frozenset[str]:
    """The forms of all words, and of all neighbours written as one word, such as "t-shirt"."""
    joined = (first + second for first, second in pairwise(text_words))
    return frozenset(form(word) for word in (*text_words, *joined))


def only_here(own: tuple[str, ...], other: tuple[str, ...]) -> frozenset[str]:
    """The own words of which the other text has no form, no number and no compound."""
    known = known_forms(other)
    there = stated(other) | may_stand(other)
    numbered = {word for number in numbers(own) if number.value in there for word in number.words}
    parts = {part for pair in pairwise(own) if form("".join(pair)) in known for part in pair}
    return frozenset(
        word for word in own if form(word) not in known and word not in numbered | parts
    )


def stated(text_words: tuple[str, ...]) -> frozenset[str]:
    """The numbers that a text states, as digits; "one" alone is more often a pronoun."""
    return frozenset(number.value for number in numbers(text_words) if number.words != ("one",))


def may_stand(text_words: Iterable[str]) -> frozenset[str]:
    """The numbers that vague words of a text may stand for, such as 2 for "couple"."""
    return frozenset(str(VAGUE[word]) for word in text_words if word in VAGUE)


def numbers(text_words: tuple[str, ...]) -> Iterator[Number]:
    """The cardinal numbers among the words of a text, in order.

    Words that belong together, such as "two hundred and five" or "twenty" and "five", are one
    number.
    """
    end = 0
    for place, word in enumerate(text_words):
        if place < end or not (word in BEGINNINGS or word[0].isdigit()):
            continue
        end, value = _number_at(text_words, place)
        if end > place:
            yield Number(f"{value.normalize():f}", text_words[place:end])


def _number_at(text_words: tuple[str, ...], start: int) -> tuple[int, Decimal]:
    """End and value of the number that begins at a word; the end is the start if none does."""
    end, group = _below_hundred(text_words, start)
    for words_before, value in FRACTIONS:
        after = start + len(words_before)
        if text_words[start:after] == words_before and _word(text_words, after) in MULTIPLIERS:
            end, group = after, Decimal(value)
    if end == start:
        return start, group
    total = Decimal(0)
    while (word := _word(text_words, end)) in MULTIPLIERS:
        end, group = end + 1, group * MULTIPLIERS[word]
        if word in ("thousand", "million"):
            total, group = total + group, Decimal(0)
        rest = end + (_word(text_words, end) == "and")
        rest_end, more = _below_hundred(text_words, rest)
        if rest_end > rest and 0 < more < MULTIPLIERS[word] and word != "dozen":
            end, group = rest_end, group + more
    return end, total + group


def _below_hundred(text_words: Sequence[str], start: int) -> tuple[int, Decimal]:
    """End and value of a number in digits or of one below a hundred in words."""
    word = _word(text_words, start)
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", word):
        return start + 1, Decimal(word)
    if word not in NUMBERS:
        return start, Decimal(0)
    value, unit = NUMBERS[word], NUMBERS.get(_word(text_words, start + 1), 0)
    if value >= 20 and 0 < unit < 10:
        return start + 2, Decimal(value + unit)
    return start + 1, Decimal(value)


def _word(text_words: Sequence[str], place: int) -> str:
    return text_words[place] if place < len(text_words) else ""
