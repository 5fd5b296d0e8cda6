"""Evidence on a case: facts about its words, and explanations worded as possible."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nlijob.analysis.explain import Evidence, Explainer
from nlijob.records.job import Example, OccludedWord, Prediction

NAMES = ("entailment", "neutral", "contradiction")


def row(label: int, probabilities: tuple[float, ...], tokens: int = 20) -> Prediction:
    predicted = max(range(3), key=probabilities.__getitem__)
    return Prediction("test", 0, label, predicted, probabilities, None, 0.1, tokens)


def evidence(
    premise: str,
    hypothesis: str,
    label: int,
    base: tuple[float, ...] = (0.1, 0.8, 0.1),
    tuned: tuple[float, ...] = (0.8, 0.1, 0.1),
    tokens: int = 20,
    importance: Sequence[OccludedWord] = (),
) -> Evidence:
    others = [row(0, (0.8, 0.1, 0.1), tokens=20) for _ in range(20)]
    explainer = Explainer.over(others, others, NAMES)
    example = Example(0, premise, hypothesis, label)
    answers = (row(label, base, tokens), row(label, tuned, tokens))
    return explainer.evidence(example, *answers, importance)


@pytest.mark.parametrize(
    ("premise", "hypothesis", "label", "tag"),
    [
        ("A man sleeps", "A man does not sleep", 2, "negation in one text only"),
        ("Two dogs run", "3 dogs run", 2, "numbers differ"),
        ("People wait", "Everyone waits", 1, "absolute word added"),
        ("A dog chases a cat", "A cat chases a dog", 2, "contradiction despite high word overlap"),
        ("A man strums", "Music plays", 0, "entailment despite low word overlap"),
    ],
)
def test_wording_is_tagged(premise: str, hypothesis: str, label: int, tag: str) -> None:
    assert tag in evidence(premise, hypothesis, label).tags


@pytest.mark.parametrize(
    ("premise", "hypothesis"),
    [("He does not run", "He never runs"), ("Two dogs", "2 dogs"), ("Dogs", "Two dogs")],
)
def test_wording_that_agrees_is_not_tagged(premise: str, hypothesis: str) -> None:
    tags = evidence(premise, hypothesis, 2).tags
    assert not {"negation in one text only", "numbers differ"} & {*tags}


def test_tags_of_the_texts_come_first_under_their_names() -> None:
    tags = evidence("A man in red", "A woman in blue", 2).tags
    assert tags[:2] == ("gender words differ", "colour words differ")


def test_only_inputs_longer_than_most_are_tagged_long() -> None:
    assert "long input" in evidence("A dog", "A cat", 0, tokens=21).tags
    assert "long input" not in evidence("A dog", "A cat", 0, tokens=20).tags


def test_a_sure_mistake_of_the_tuned_model_is_tagged() -> None:
    tags = evidence("A dog", "A cat", 2, tuned=(0.95, 0.03, 0.02)).tags
    assert "tuned model confidently wrong" in tags


def test_explanation_names_both_models_labels_and_probabilities() -> None:
    text = evidence("A dog", "A cat", 0, base=(0.1, 0.71, 0.19)).explanation
    assert "base model answered neutral (probability 0.71)" in text
    assert "tuned model entailment (probability 0.80)" in text


def test_every_reason_is_worded_as_possible() -> None:
    for label in range(3):
        for answer in ((0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8), (0.4, 0.35, 0.25)):
            found = evidence("Two men do not run", "Everyone runs fast", label, answer, answer)
            _, *reasons = [finding.text for finding in found.findings]
            assert reasons
            assert all("may" in reason or "Nothing" in reason for reason in reasons)


def test_a_habit_of_the_base_model_is_named_with_its_counts() -> None:
    neutral = [row(0, (0.1, 0.8, 0.1)) for _ in range(10)]
    explainer = Explainer.over(neutral, neutral, NAMES)
    text = explainer.evidence(Example(0, "A", "B", 0), neutral[0], neutral[0]).explanation
    assert "answered neutral for 10 of 10 test rows" in text


def test_no_reason_is_invented_if_nothing_stands_out() -> None:
    text = evidence("A man plays", "A man plays", 0, tuned=(0.9, 0.05, 0.05)).explanation
    assert "Nothing in the wording stands out" in text


def test_other_labels_and_scripts_are_explained_without_error() -> None:
    explainer = Explainer.over([], [], ("да", "нет"))
    one = Prediction("test", 0, 0, 1, (0.4, 0.6), None, 0.1, 5)
    found = explainer.evidence(Example(0, "رجل يقرأ", "🙂 \u0000 <b>", 0), one, one)
    assert "да" in found.explanation


WORDS = (
    OccludedWord("premise", 2, 5, 0.05, 0.6),
    OccludedWord("hypothesis", 0, 4, 0.42, -0.3),
)


def test_the_word_that_a_wrong_answer_depends_on_is_named_with_its_figure() -> None:
    text = evidence("A dog runs", "Cats sit", 0, importance=WORDS).explanation
    assert "base model's wrong answer depends most on the word “Cats” in the hypothesis" in text
    assert "the probability of neutral falls by 0.42" in text


def test_the_tuned_models_mistake_comes_before_the_base_models() -> None:
    text = evidence("A dog runs", "Cats sit", 2, importance=WORDS).explanation
    assert "tuned model's wrong answer depends most on the word “dog” in the premise" in text


def test_a_word_that_hardly_matters_is_not_named() -> None:
    small = (OccludedWord("premise", 2, 5, 0.05, 0.6),)
    assert "depends" not in evidence("A dog runs", "Cats sit", 0, importance=small).explanation


def test_a_finding_carries_its_code_and_figures_beside_its_sentence() -> None:
    answers, reason, word = evidence("A dog runs", "Cats sit", 0, importance=WORDS).findings
    assert (answers.code, answers.figures["base_answer"]) == ("answers", "neutral")
    assert (answers.figures["gold_label"], answers.figures["tuned_probability"]) == (
        "entailment",
        0.8,
    )
    assert (reason.code, reason.figures) == ("low-overlap", {"overlap": 0.0})
    assert (word.code, word.figures["word"], word.figures["fall"]) == ("key-word", "Cats", 0.42)


@pytest.mark.parametrize(
    ("hypothesis", "text"),
    [
        ("A sad dog", "has a word that is not in the premise (“sad”), which may"),
        ("A sad old dog", "has words that are not in the premise (“sad” and “old”), which may"),
        ("A sad old wet red dog", "(“sad”, “old”, “wet” and 1 other), which may"),
        ("A sad old wet red cat", "(“sad”, “old”, “wet” and 2 others), which may"),
    ],
)
def test_words_that_the_premise_does_not_have_are_counted_exactly(
    hypothesis: str, text: str
) -> None:
    answers = ((0.8, 0.1, 0.1), (0.8, 0.1, 0.1))
    assert text in evidence("The dog", hypothesis, 1, *answers).explanation


def test_a_numeral_is_not_named_as_missing_where_the_premise_has_its_word() -> None:
    wrong = ((0.1, 0.1, 0.8), (0.1, 0.1, 0.8))
    text = evidence("Three dogs run", "3 wet dogs run", 1, *wrong).explanation
    assert "has a word that is not in the premise (“wet”)" in text
