"""The words of a shown case: how its texts differ, and which words the answers depend on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nlijob.analysis.word_difference import Segment, word_difference
from nlijob.analysis.wording import listed, plural, signed_probability
from nlijob.records.job import OccludedWord
from nlijob.records.outcome import Case
from nlijob.report.view.parts import View
from nlijob.report.view.text import visible

FULL_COLOUR = 0.5
"""Importance at and above which a word has its full colour."""
LEAST_SHOWN = 0.02
"""Importance below which a word has no colour: rounding alone changes probabilities by less."""
TOP_WORDS = 3
LEAST_CUT = 100
"""A text is cut after its last tried word if this many characters or more follow."""


@dataclass(frozen=True)
class Weighted:
    """A word with its importance, or a piece of text without."""

    text: str
    strength: float
    """Percent of the full colour, 0 to 100; 0 for unimportant words and text between words."""
    against: bool
    """Whether the model gave its answer a higher probability without the word."""


def differing_words(case: Case) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    """Premise and hypothesis cut into stretches that are in both texts or in only one."""
    difference = word_difference(case.premise, case.hypothesis)
    return _stretches(difference.premise), _stretches(difference.hypothesis)


def word_importance(case: Case, label_names: Sequence[str]) -> tuple[View, ...]:
    """Word importance for the base and the tuned model; empty if not measured."""
    if not case.word_importance:
        return ()
    words = case.word_importance
    base, tuned = [word.base for word in words], [word.tuned for word in words]
    return (
        _importance("base model", label_names[case.base_predicted], case, base),
        _importance("tuned model", label_names[case.tuned_predicted], case, tuned),
    )


def not_tried(case: Case) -> str:
    """Note on the words of a very long row that were not tried; "" if there are none."""
    passed = case.words_not_tried
    return f"Not tried: {plural(passed, 'word')} at the end of long texts." if passed else ""


def _stretches(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    return tuple(Segment(visible(s.text), s.only_here) for s in segments)


def _importance(model: str, answer: str, case: Case, weights: Sequence[float]) -> View:
    weighted = list(zip(case.word_importance, weights, strict=True))
    texts = {"premise": case.premise, "hypothesis": case.hypothesis}
    ranked = sorted(weighted, key=lambda pair: -abs(pair[1]))[:TOP_WORDS]
    top = [
        f"“{visible(texts[word.text][word.start : word.end])}” {signed_probability(weight)}"
        for word, weight in ranked
        if abs(weight) >= LEAST_SHOWN
    ]
    premise, hypothesis = (
        tuple(_weighted(text, [(w, v) for w, v in weighted if w.text == name]))
        for name, text in texts.items()
    )
    return View(
        model=model,
        answer=answer,
        top=listed(top) if top else "no single word matters much",
        premise=premise,
        hypothesis=hypothesis,
    )


def _tried(text: str, words: Sequence[tuple[OccludedWord, float]]) -> str:
    end = words[-1][0].end if words else 0
    return text if len(text) - end < LEAST_CUT else f"{text[:end]} …"


def _weighted(text: str, words: Sequence[tuple[OccludedWord, float]]) -> Iterator[Weighted]:
    """The text in order: important words, and the text between them.

    A very long text ends at the last word that was tried, as the rest has no figures.
    """
    done, text = 0, _tried(text, words)
    for word, weight in words:
        if abs(weight) < LEAST_SHOWN:
            continue
        if word.start > done:
            yield Weighted(visible(text[done : word.start]), 0, against=False)
        strength = 100 * min(1.0, abs(weight) / FULL_COLOUR)
        yield Weighted(visible(text[word.start : word.end]), strength, against=weight < 0)
        done = word.end
    if done < len(text):
        yield Weighted(visible(text[done:]), 0, against=False)
