"""The words of a shown case: where its two texts differ, and which words carry the answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nlijob.analysis.word_difference import Segment, word_difference
from nlijob.analysis.wording import listed, plural, signed
from nlijob.records import Case, OccludedWord
from nlijob.report.view.text import visible

FULL_COLOUR = 0.5
"""Importance from which a word has its full colour."""
LEAST_SHOWN = 0.02
"""Importance from which a word has any: arithmetic alone moves probabilities by less."""
TOP_WORDS = 3
LEAST_CUT = 100
"""Characters without a word that was tried from which a text is cut short."""


@dataclass(frozen=True)
class Stretch:
    """A piece of a text; `only_here` where the other text lacks it."""

    text: str
    only_here: bool


@dataclass(frozen=True)
class Weighted:
    """A piece of a text with the importance of a word, or none."""

    text: str
    strength: float
    """0 to 100, percent of the full colour; 0 for what is no word or hardly matters."""
    against: bool
    """Whether the model was surer of its answer without the word."""


@dataclass(frozen=True)
class Importance:
    """Which words carry one model's answer."""

    model: str
    answer: str
    top: str
    premise: tuple[Weighted, ...]
    hypothesis: tuple[Weighted, ...]


def differing_words(case: Case) -> tuple[tuple[Stretch, ...], tuple[Stretch, ...]]:
    """Premise and hypothesis in stretches that stand in both or in one only."""
    difference = word_difference(case.premise, case.hypothesis)
    return _stretches(difference.premise), _stretches(difference.hypothesis)


def word_importance(case: Case, label_names: Sequence[str]) -> tuple[Importance, ...]:
    """The base model's words and the tuned model's; empty where none were measured."""
    if not case.word_importance:
        return ()
    return (
        _importance(
            "base model",
            label_names[case.base_predicted],
            case,
            [word.base for word in case.word_importance],
        ),
        _importance(
            "tuned model",
            label_names[case.tuned_predicted],
            case,
            [word.tuned for word in case.word_importance],
        ),
    )


def not_tried(case: Case) -> str:
    """How many words of a very long row were passed over; "" for none."""
    passed = case.words_not_tried
    return f"{plural(passed, 'word')} beyond the first of each text not tried." if passed else ""


def _stretches(segments: Iterable[Segment]) -> tuple[Stretch, ...]:
    return tuple(Stretch(visible(s.text), s.kind == "only here") for s in segments)


def _importance(model: str, answer: str, case: Case, weights: Sequence[float]) -> Importance:
    weighted = list(zip(case.word_importance, weights, strict=True))
    texts = {"premise": case.premise, "hypothesis": case.hypothesis}
    ranked = sorted(weighted, key=lambda pair: -abs(pair[1]))[:TOP_WORDS]
    top = [
        f"“{visible(texts[word.text][word.start : word.end])}” {signed(weight, 2)}"
        for word, weight in ranked
        if abs(weight) >= LEAST_SHOWN
    ]
    premise, hypothesis = (
        tuple(_weighted(text, [(w, v) for w, v in weighted if w.text == name]))
        for name, text in texts.items()
    )
    return Importance(
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
    """The text in order: words of some importance, and all that stands between them.

    It ends where the last word was tried: what follows in a very long text has no figures.
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
