"""Possible explanations of a case, from the words of its texts and the probabilities.

Nothing here looks inside the model. Tags are facts about the texts (nlijob.analysis.tags), the gold
label and the probabilities. Findings are derived from them and worded as possible, never as
certain. The word lists are English; fewer tags apply to other languages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nlijob.analysis.tags import TAG_NAMES, Words, compare_words, is_high, is_low
from nlijob.analysis.wording import count, listed, percent, plural, probability
from nlijob.records.job import Example, OccludedWord, Prediction
from nlijob.records.outcome import Finding

SURE = 0.9
"""Least probability of a confident answer."""
CLOSE = 0.1
"""Largest difference between the two highest probabilities in a close call."""
KEY_WORD = 0.1
"""Least fall in probability for an answer to depend on a word."""
HABIT = 0.8
"""Least share of the base model's answers that makes a label its habit."""
LONG_QUANTILE = 0.9
"""Inputs longer than this quantile of all test rows are long."""


@dataclass(frozen=True)
class Evidence:
    """What is shown beside a case."""

    words: Words
    tags: tuple[str, ...]
    findings: tuple[Finding, ...]
    """The models' answers, possible reasons for them, and the word that they depend on most."""

    @property
    def explanation(self) -> str:
        """The findings as running text."""
        return " ".join(finding.text for finding in self.findings)


@dataclass(frozen=True)
class Explainer:
    """Explains cases, given both models' predictions on all test rows."""

    label_names: tuple[str, ...]
    rows: int
    base_counts: tuple[int, ...]
    """Number of rows for which the base model answered each label."""
    long_above_tokens: int

    @classmethod
    def over(
        cls,
        base: Sequence[Prediction],
        tuned: Sequence[Prediction],
        label_names: Sequence[str],
    ) -> Explainer:
        """An explainer from both models' predictions on all test rows of a run."""
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
        """Words, tags and findings on one test row; `importance` if it was measured."""
        words = compare_words(example.premise, example.hypothesis)
        findings = (
            self._answers(base, tuned),
            *self._reasons(words, base, tuned),
            *self._key_word(example, base, tuned, importance),
        )
        return Evidence(words, tuple(self._tags(words, base, tuned)), findings)

    def _tags(self, words: Words, base: Prediction, tuned: Prediction) -> Iterable[str]:
        gold = self.label_names[base.label]
        yield from (TAG_NAMES[key] for key in words.tags)
        if is_high(words.overlap) and gold == "contradiction":
            yield "contradiction despite high word overlap"
        if is_low(words.overlap) and gold == "entailment":
            yield "entailment despite low word overlap"
        if base.tokens > self.long_above_tokens:
            yield "long input"
        if base.probabilities[base.label] <= 1 - SURE and not base.is_right:
            yield "base model far off"
        if not tuned.is_right and tuned.confidence >= SURE:
            yield "tuned model confidently wrong"
        if _margin(tuned) < CLOSE:
            yield "close call after tuning"

    def _answers(self, base: Prediction, tuned: Prediction) -> Finding:
        before, after = (self.label_names[one.predicted] for one in (base, tuned))
        gold = self.label_names[base.label]
        gold_before, gold_after = (one.probabilities[one.label] for one in (base, tuned))
        if before == after:
            answers = (
                f"Both models answered {before}, the tuned model with a probability of "
                f"{probability(tuned.confidence)}"
            )
        else:
            answers = (
                f"The base model answered {before} (probability {probability(base.confidence)}), "
                f"the tuned model {after} (probability {probability(tuned.confidence)})"
            )
        return _finding(
            "answers",
            f"{answers}; that of the gold label, {gold}, went from {probability(gold_before)} to "
            f"{probability(gold_after)}.",
            base_answer=before,
            base_probability=base.confidence,
            tuned_answer=after,
            tuned_probability=tuned.confidence,
            gold_label=gold,
            gold_probability_before=gold_before,
            gold_probability_after=gold_after,
        )

    def _reasons(self, words: Words, base: Prediction, tuned: Prediction) -> Sequence[Finding]:
        """At most two possible reasons, the base model's habit first."""
        reasons = [*self._habit(base), *self._wording(words, base, tuned)][:2]
        return reasons or [_finding("no-reason", "Nothing in the wording stands out as a reason.")]

    def _habit(self, base: Prediction) -> Iterable[Finding]:
        times = self.base_counts[base.predicted]
        if not base.is_right and self.rows and times / self.rows >= HABIT:
            answer = self.label_names[base.predicted]
            yield _finding(
                "habit",
                f"The base model answered {answer} for {count(times)} of "
                f"{plural(self.rows, 'test row')}, so its answer here may reflect that habit "
                "rather than this row.",
                answer=answer,
                answers=times,
                rows=self.rows,
            )

    def _wording(self, words: Words, base: Prediction, tuned: Prediction) -> Iterable[Finding]:
        """Possible reasons for the wrong answer in the words, the more specific ones first."""
        wrong = base if tuned.is_right else tuned
        if wrong.is_right:
            return
        answer, gold = self.label_names[wrong.predicted], self.label_names[wrong.label]
        yield from _contrasts(words, answer, gold)
        yield from _overlap(words, answer, gold)
        yield from _new_words(words, answer, gold)
        if _margin(wrong) < CLOSE:
            yield _finding(
                "close-call",
                "The two most likely labels were close, so a small difference may have decided.",
                margin=_margin(wrong),
            )

    def _key_word(
        self,
        example: Example,
        base: Prediction,
        tuned: Prediction,
        importance: Sequence[OccludedWord],
    ) -> Iterable[Finding]:
        """The word that a wrong answer depends on most, if it depends on a single word."""
        model, wrong = ("base", base) if tuned.is_right else ("tuned", tuned)
        weights = [(word.base if tuned.is_right else word.tuned, word) for word in importance]
        weight, found = max(weights, key=lambda pair: pair[0], default=(0.0, None))
        if found is None or weight < KEY_WORD or wrong.is_right:
            return
        text = example.premise if found.text == "premise" else example.hypothesis
        word, answer = text[found.start : found.end], self.label_names[wrong.predicted]
        yield _finding(
            "key-word",
            f"The {model} model's wrong answer depends most on the word “{word}” in the "
            f"{found.text}: without it, the probability of {answer} falls by "
            f"{probability(weight)}.",
            model=model,
            word=word,
            text=found.text,
            answer=answer,
            fall=weight,
        )


def _contrasts(words: Words, answer: str, gold: str) -> Iterable[Finding]:
    if words.negation_differs and "contradiction" in (answer, gold):
        word = words.negation_differs[0]
        misread = "been read as a contradiction" if answer == "contradiction" else "been missed"
        yield _finding(
            "negation",
            f"The negation “{word}” is in only one of the texts and may have {misread}.",
            word=word,
        )
    if words.numbers_differ and gold == "contradiction":
        yield _finding("numbers", "The texts have different numbers, which may have been missed.")


def _overlap(words: Words, answer: str, gold: str) -> Iterable[Finding]:
    share = words.overlap or 0.0
    shared = percent(share, 0) if share else "None"
    if is_high(words.overlap) and answer == "entailment":
        yield _finding(
            "high-overlap",
            f"{shared} of the hypothesis's content words are also in the premise, as written, "
            "which may have pulled the answer towards entailment.",
            overlap=share,
        )
    if is_low(words.overlap) and gold == "entailment":
        yield _finding(
            "low-overlap",
            f"{shared} of the hypothesis's content words are in the premise, as written; the "
            "entailment may rest on a paraphrase that was not recognised.",
            overlap=share,
        )


def _new_words(words: Words, answer: str, gold: str) -> Iterable[Finding]:
    new = words.only_in_hypothesis
    if new and gold == "neutral":
        yield _finding(
            "new-words",
            f"The hypothesis has {_missing(new)}, which may have been read as {answer}.",
            words=" ".join(new),
        )
    if new and gold == "contradiction" and answer != "contradiction":
        yield _finding(
            "unmatched-words",
            f"The contradiction may rest on {_missing(new)}, which the model may not have compared "
            "with it.",
            words=" ".join(new),
        )
    if words.absolutes_added:
        word = words.absolutes_added[0]
        yield _finding(
            "absolute",
            f"The word “{word}”, which is not in the premise, may claim more than it supports.",
            word=word,
        )


def _finding(code: str, text: str, /, **figures: int | float | str) -> Finding:
    return Finding(code, figures, text)


def _margin(prediction: Prediction) -> float:
    first, second = sorted(prediction.probabilities, reverse=True)[:2]
    return first - second


def _missing(words: Sequence[str], most: int = 3) -> str:
    """That the premise does not have these words, of which the first are named."""
    shown = [f"“{word}”" for word in words[:most]]
    rest = len(words) - len(shown)
    named = listed([*shown, plural(rest, "other")] if rest else shown)
    are = "a word that is" if len(words) == 1 else "words that are"
    return f"{are} not in the premise ({named})"
