"""Label distributions compared with the gold labels."""

from __future__ import annotations

import pytest
from scipy.spatial.distance import cityblock

from nlijob.analysis.label_bias import label_bias, label_bias_sentences
from nlijob.analysis.metrics import measure
from nlijob.records.outcome import Metrics
from tests.unit.analysis.made import NAMES, answered

GOLD = [0, 1, 2] * 10


def metrics(answers: list[int], gold: list[int] | None = None) -> Metrics:
    return measure(answered(gold or GOLD, answers), NAMES)


def test_counts_of_gold_labels_and_both_models_answers_are_side_by_side() -> None:
    found = label_bias(metrics([1] * 30), metrics(GOLD))
    assert [(own.name, own.gold, own.base, own.tuned) for own in found.labels] == [
        ("entailment", 10, 0, 10),
        ("neutral", 10, 30, 10),
        ("contradiction", 10, 0, 10),
    ]


def test_distance_is_half_the_sum_of_the_differences_of_shares() -> None:
    answers = [0] * 4 + [1] * 17 + [2] * 9
    found = label_bias(metrics(answers), metrics(GOLD))
    assert found.base_distance == pytest.approx(
        cityblock([1 / 3] * 3, [4 / 30, 17 / 30, 9 / 30]) / 2
    )
    assert found.tuned_distance == 0.0


def test_all_answers_wrong_may_still_be_as_frequent_as_the_gold_labels() -> None:
    wrong = [(label + 1) % 3 for label in GOLD]
    _, tuned = label_bias_sentences(metrics([1] * 30), metrics(wrong))
    assert tuned == "The tuned model predicted each label as often as it is the gold label."


def test_one_label_for_nearly_all_rows_is_stated_plainly() -> None:
    base, _ = label_bias_sentences(metrics([1] * 28 + [0, 2]), metrics(GOLD))
    assert base == (
        "The base model answered “neutral” for 28 of 30 rows; the gold label is “neutral” for 10."
    )


def test_a_distance_is_given_with_its_answers() -> None:
    base, _ = label_bias_sentences(metrics([0] * 4 + [1] * 17 + [2] * 9), metrics(GOLD))
    assert "by 23.3 % (7 of 30 answers would" in base
    assert "overpredicts most: “neutral” (17 answers for 10 rows)" in base


def test_labels_that_are_overpredicted_alike_are_all_named() -> None:
    base, _ = label_bias_sentences(metrics([0] * 14 + [1] * 14 + [2] * 2), metrics(GOLD))
    assert "most: “entailment” (14 answers for 10 rows) and “neutral” (14 answers for" in base


def test_a_label_without_rows_counts_in_the_distance() -> None:
    two = metrics([0, 1] * 5, gold=[0, 1] * 5)
    other = metrics([0, 2] * 5, gold=[0, 1] * 5)
    assert label_bias(other, two).base_distance == 0.5


def test_models_measured_on_different_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="different rows"):
        label_bias(metrics([0, 0], gold=[0, 0]), metrics([0, 0], gold=[0, 1]))
