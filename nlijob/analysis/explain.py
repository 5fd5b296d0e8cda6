"""What the words of a case show, and what they may have to do with the answer.

Nothing here looks inside the model. Tags are facts about the texts (nlijob.analysis.tags), the gold
label and the probabilities; the explanation is composed from them and worded as possible, never as
a claim. The word lists are English; on other languages fewer tags apply.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nlijob.analysis.tags import TAG_NAMES, Words, compare_words, is_high, is_low
from nlijob.analysis.wording import probability
from nlijob.records import Example, OccludedWord, Prediction

SURE = 0.9
CLOSE = 0.1
CARRIES = 0.1
"""Loss of probability from which a word is said to carry an answer."""
HABIT = 0.8
LONG_QUANTILE = 0.9


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

    def evidence(
        self,
        example: Example,
        base: Prediction,
        tuned: Prediction,
        importance: Sequence[OccludedWord] = (),
    ) -> Evidence:
        """Words, tags and possible explanation of one test row; `importance` where measured."""
        words = compare_words(example.premise, example.hypothesis)
        sentences = [
            *self._sentences(words, base, tuned),
            *self._carrying_word(example, base, tuned, importance),
        ]
        return Evidence(words, tuple(self._tags(words, base, tuned)), " ".join(sentences))

    def _tags(self, words: Words, base: Prediction, tuned: Prediction) -> Iterable[str]:
        gold = self.label_names[base.label]
        yield from (TAG_NAMES[key] for key in words.tags)
        if is_high(words.overlap) and gold == "contradiction":
            yield "contradiction in nearly the same words"
        if is_low(words.overlap) and gold == "entailment":
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

    def _carrying_word(
        self,
        example: Example,
        base: Prediction,
        tuned: Prediction,
        importance: Sequence[OccludedWord],
    ) -> Iterable[str]:
        """The word that a wrong answer rests on most, where it rests on one."""
        tuned_is_wrong = tuned.predicted != tuned.label
        wrong = tuned if tuned_is_wrong else base
        weights = [(word.tuned if tuned_is_wrong else word.base, word) for word in importance]
        weight, word = max(weights, key=lambda pair: pair[0], default=(0.0, None))
        if word is None or weight < CARRIES or wrong.predicted == wrong.label:
            return
        text = example.premise if word.text == "premise" else example.hypothesis
        yield (
            f"Of single words, “{text[word.start : word.end]}” in the {word.text} carried the "
            f"{'tuned' if tuned_is_wrong else 'base'} model's wrong answer most: without it the "
            f"probability of {self.label_names[wrong.predicted]} falls by {weight:.2f}."
        )

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
        if is_high(words.overlap) and answer == "entailment":
            yield (
                f"{_share(words.overlap)} of the hypothesis's content words also stand in the "
                "premise, which may have pulled the answer towards entailment."
            )
        if is_low(words.overlap) and gold == "entailment":
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
