"""What the words of a case show, and what they may have to do with the answer.

Nothing here looks inside the model. Tags and word lists are facts about the texts and the
probabilities; the explanation is composed from them and worded as possible, never as a claim.
The word lists are English; on other languages fewer tags apply.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nlijob.analysis.wording import probability
from nlijob.records import Example, Prediction


def _word_set(words: str) -> frozenset[str]:
    return frozenset(words.split())


NEGATIONS = _word_set(
    "no not never nobody none nothing neither nor nowhere without cannot isn't aren't wasn't "
    "weren't don't doesn't didn't won't can't couldn't wouldn't shouldn't hasn't haven't"
)
ABSOLUTES = _word_set("all every everyone everybody everything always only both each")
STOPWORDS = _word_set(
    "a an the this that these those is are was were be been being am do does did has have had of "
    "in on at to from by with for and or but as it its his her their he she they him them there "
    "here who which what while into onto over under up down out off near next some"
)
NUMBERS = {
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
    "eleven": "11",
    "twelve": "12",
}
HIGH_OVERLAP = 0.8
LOW_OVERLAP = 0.25
SURE = 0.9
CLOSE = 0.1
HABIT = 0.8
LONG_QUANTILE = 0.9


@dataclass(frozen=True)
class Words:
    """The words of a premise and a hypothesis, compared; all in lower case, in order."""

    only_in_premise: tuple[str, ...]
    only_in_hypothesis: tuple[str, ...]
    overlap: float | None
    """Share of the hypothesis's content words that stand in the premise; None where it has none."""
    negation_differs: tuple[str, ...]
    """Negation words, where one sentence has some and the other has none."""
    absolutes_added: tuple[str, ...]
    """Words such as "all" that only the hypothesis has."""
    numbers_differ: bool
    """Both sentences have number words, and not the same ones."""


@dataclass(frozen=True)
class Evidence:
    """What is shown beside a case."""

    words: Words
    tags: tuple[str, ...]
    explanation: str


@dataclass(frozen=True)
class Explainer:
    """Explains cases against the background of all test rows."""

    label_names: tuple[str, ...]
    rows: int
    base_counts: tuple[int, ...]
    """Rows that the base model gave each label."""
    long_above_tokens: int

    @classmethod
    def over(
        cls,
        base: Sequence[Prediction],
        tuned: Sequence[Prediction],
        label_names: Sequence[str],
    ) -> Explainer:
        """An explainer for a run, from both models' predictions on all test rows."""
        answers = Counter(prediction.predicted for prediction in base)
        lengths = sorted(prediction.tokens for prediction in tuned)
        long_above = lengths[int(LONG_QUANTILE * (len(lengths) - 1))] if lengths else 0
        return cls(
            label_names=tuple(label_names),
            rows=len(base),
            base_counts=tuple(answers[label] for label in range(len(label_names))),
            long_above_tokens=long_above,
        )

    def evidence(self, example: Example, base: Prediction, tuned: Prediction) -> Evidence:
        """Words, tags and possible explanation of one test row."""
        words = compare_words(example.premise, example.hypothesis)
        return Evidence(
            words=words,
            tags=tuple(self._tags(words, base, tuned)),
            explanation=" ".join(self._sentences(words, base, tuned)),
        )

    def _tags(self, words: Words, base: Prediction, tuned: Prediction) -> Iterable[str]:
        gold = self.label_names[base.label]
        if words.negation_differs:
            yield "negation on one side"
        if words.numbers_differ:
            yield "number words differ"
        if words.absolutes_added:
            yield "all-or-none word added"
        if _is_high(words.overlap) and gold == "contradiction":
            yield "contradiction in nearly the same words"
        if _is_low(words.overlap) and gold == "entailment":
            yield "entailment in other words"
        if base.tokens > self.long_above_tokens:
            yield "long input"
        if base.probabilities[base.label] <= 1 - SURE and base.predicted != base.label:
            yield "base model far off"
        if tuned.predicted != tuned.label and tuned.probabilities[tuned.predicted] >= SURE:
            yield "tuned model sure of its mistake"
        if _margin(tuned) < CLOSE:
            yield "close call after tuning"

    def _sentences(self, words: Words, base: Prediction, tuned: Prediction) -> Iterable[str]:
        yield self._probabilities(base, tuned)
        reasons = [*self._habit(base), *self._wording(words, base, tuned)][:2]
        yield from reasons or ["Nothing in the wording stands out as a reason."]

    def _probabilities(self, base: Prediction, tuned: Prediction) -> str:
        gold = self.label_names[base.label]
        before, after = (self._lean(prediction) for prediction in (base, tuned))
        moved = (_p(prediction.probabilities[base.label]) for prediction in (base, tuned))
        if base.predicted == tuned.predicted:
            lean = f"Both models leaned to {before}, the tuned one with {_p(_top(tuned))}"
        else:
            lean = f"The base model leaned to {before}, the tuned model to {after}"
        return f"{lean}; the gold label {gold} went from {' to '.join(moved)}."

    def _lean(self, prediction: Prediction) -> str:
        return f"{self.label_names[prediction.predicted]} ({_p(_top(prediction))})"

    def _habit(self, base: Prediction) -> Iterable[str]:
        count = self.base_counts[base.predicted]
        if base.predicted != base.label and self.rows and count / self.rows >= HABIT:
            yield (
                f"The base model gave {self.label_names[base.predicted]} for {count} of "
                f"{self.rows} test rows, so its answer here may be that habit rather than a "
                "reading of this row."
            )

    def _wording(self, words: Words, base: Prediction, tuned: Prediction) -> Iterable[str]:
        """Possible reasons that fit the wrong answer at hand, the more specific first."""
        wrong = tuned if tuned.predicted != tuned.label else base
        if wrong.predicted == wrong.label:
            return
        answer, gold = self.label_names[wrong.predicted], self.label_names[wrong.label]
        if words.negation_differs and (answer == "contradiction" or gold == "contradiction"):
            misread = "as a contradiction" if answer == "contradiction" else "past"
            yield (
                f"The negation “{words.negation_differs[0]}” stands in one sentence only and may "
                f"have been read {misread}."
            )
        if words.numbers_differ and gold == "contradiction":
            yield "The two sentences differ in number words, which may have been missed."
        if _is_high(words.overlap) and answer == "entailment":
            yield (
                f"{_share(words.overlap)} of the hypothesis's content words also stand in the "
                "premise, which may have pulled the answer towards entailment."
            )
        if _is_low(words.overlap) and gold == "entailment":
            yield (
                f"{_share(words.overlap)} of the hypothesis's content words stand in the premise; "
                "the entailment may rest on a paraphrase that was not recognised."
            )
        if words.only_in_hypothesis and gold == "neutral":
            yield (
                f"The hypothesis adds {_listed(words.only_in_hypothesis)}, which the premise does "
                f"not mention; that may have been read as {answer}."
            )
        if words.only_in_hypothesis and gold == "contradiction" and answer != "contradiction":
            yield (
                f"The contradiction may rest on {_listed(words.only_in_hypothesis)}, which the "
                "model may not have set against the premise."
            )
        if words.absolutes_added:
            yield (
                f"The word “{words.absolutes_added[0]}” in the hypothesis asks for more than the "
                "premise may say."
            )
        if _margin(wrong) < CLOSE:
            yield "The two likeliest labels were close, so a small difference may have decided."


def compare_words(premise: str, hypothesis: str) -> Words:
    """The words of two texts, compared without regard to case."""
    before, after = _words(premise), _words(hypothesis)
    content_before, content_after = _content(before), _content(after)
    shared = [word for word in content_after if word in content_before]
    return Words(
        only_in_premise=tuple(w for w in content_before if w not in content_after),
        only_in_hypothesis=tuple(w for w in content_after if w not in content_before),
        overlap=len(shared) / len(content_after) if content_after else None,
        negation_differs=_on_one_side(before, after),
        absolutes_added=tuple(w for w in after if w in ABSOLUTES and w not in before),
        numbers_differ=_numbers_differ(_numbers(before), _numbers(after)),
    )


def _words(text: str) -> tuple[str, ...]:
    """Distinct words in order, lower case, with one kind of apostrophe."""
    found = re.findall(r"\w+(?:'\w+)*", text.casefold().replace("\u2019", "'"))
    return tuple(dict.fromkeys(found))


def _content(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in STOPWORDS)


def _on_one_side(before: Iterable[str], after: Iterable[str]) -> tuple[str, ...]:
    left = tuple(word for word in before if word in NEGATIONS)
    right = tuple(word for word in after if word in NEGATIONS)
    return () if left and right else left or right


def _numbers(words: Iterable[str]) -> frozenset[str]:
    return frozenset(NUMBERS.get(word, word) for word in words if word in NUMBERS or _is_int(word))


def _numbers_differ(before: frozenset[str], after: frozenset[str]) -> bool:
    return bool(before and after and before != after)


def _is_int(word: str) -> bool:
    return word.isascii() and word.isdigit()


def _is_high(overlap: float | None) -> bool:
    return overlap is not None and overlap >= HIGH_OVERLAP


def _is_low(overlap: float | None) -> bool:
    return overlap is not None and overlap <= LOW_OVERLAP


def _top(prediction: Prediction) -> float:
    return prediction.probabilities[prediction.predicted]


def _margin(prediction: Prediction) -> float:
    first, second = sorted(prediction.probabilities, reverse=True)[:2]
    return first - second


def _share(overlap: float | None) -> str:
    return f"{100 * overlap:.0f} %" if overlap else "None"


def _listed(words: Sequence[str], most: int = 3) -> str:
    quoted = [f"“{word}”" for word in words[:most]]
    more = ["more"] if len(words) > most else []
    *first, last = quoted + more
    return f"{', '.join(first)} and {last}" if first else last


def _p(value: float) -> str:
    text = probability(value)
    return f"p {text}" if text.startswith(("<", ">")) else f"p = {text}"
