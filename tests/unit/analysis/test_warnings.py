"""Findings about the figures appear exactly where they apply."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from nlijob.analysis.metrics import measure
from nlijob.analysis.selection import select
from nlijob.analysis.warnings import (
    comparison_warnings,
    data_warnings,
    slice_warnings,
    training_warnings,
)
from nlijob.records.job import EpochResult, Manifest, Memory, Prediction, SplitManifest, SplitScore
from nlijob.records.outcome import EpochComparison, Finding, Metrics
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome

NAMES = ("entailment", "neutral", "contradiction")


def metrics(answers: list[int], mass: float | None = None) -> Metrics:
    """Metrics of these predictions for gold labels 0, 1, 2, 0, 1, 2, ..."""
    rows = [
        Prediction("test", i, i % 3, answer, (0.3, 0.3, 0.4), mass, 1.0, 9)
        for i, answer in enumerate(answers)
    ]
    return measure(rows, NAMES)


GOOD = metrics([0, 1, 2] * 30)


def texts(findings: Iterable[Finding]) -> str:
    return "\n".join(finding.text for finding in findings)


def compared(base: Metrics, tuned: Metrics = GOOD, p: float = 0.001) -> str:
    return texts(comparison_warnings(base, tuned, tuned.accuracy - base.accuracy, p))


def epochs(*figures: tuple[float, float, int]) -> list[EpochResult]:
    """Epochs from (training loss, validation loss, correct validation rows of 1,000)."""
    return [
        EpochResult(
            number,
            1,
            8,
            train,
            1.0,
            SplitScore("validation", 1000, right, loss, 1.0),
            None,
            Memory(None, None),
        )
        for number, (train, loss, right) in enumerate(figures, start=1)
    ]


def told(*figures: tuple[float, float, int]) -> str:
    results = epochs(*figures)
    return texts(training_warnings(results, select(results), ()))


def manifest(*counts: tuple[int, ...]) -> Manifest:
    splits = [
        SplitManifest("test", 900, "all", sum(c), 0, sum(c), c, "", tuple(range(sum(c))))
        for c in counts
    ]
    return Manifest("d", None, None, NAMES, {"test": splits[0]}, {}, ())


def test_a_clear_gain_over_a_sound_base_gives_no_warning() -> None:
    assert compared(metrics([0, 1, 2] * 20 + [1, 2, 0] * 10)) == ""


@pytest.mark.parametrize(("p", "warned"), [(0.05, True), (0.4, True), (0.0499, False)])
def test_a_change_that_chance_explains_is_reported(p: float, warned: bool) -> None:
    assert ("is not distinguishable from no change" in compared(GOOD, p=p)) is warned


def test_one_label_nearly_always_is_reported_with_its_counts() -> None:
    text = compared(metrics([1] * 85 + [0, 0, 2, 2, 0]))
    assert "base model answered “neutral” for 85 of 90 test rows (94.4 %)" in text


def test_one_label_often_is_not_reported_as_nearly_always() -> None:
    assert "answered" not in compared(metrics([1] * 80 + [0] * 10))


def test_a_lower_recall_is_reported_with_both_counts() -> None:
    worse = metrics([0, 1, 2] * 25 + [0, 1, 1] * 5)
    text = compared(GOOD, worse)
    assert "fewer of the “contradiction” rows: 30 before, 25 after, of 30" in text
    assert "“neutral”" not in text


def test_a_tuned_model_no_better_than_the_most_frequent_label_is_reported() -> None:
    text = compared(GOOD, metrics([0, 1, 1] * 5 + [1, 0, 0] * 25))
    assert "Always answering “entailment” would be right for 30 of 90 test rows (33.3 %)" in text
    assert "Always answering" not in compared(GOOD)


def test_a_low_probability_of_the_label_tokens_is_reported() -> None:
    assert "put 20.0 % of its probability" in compared(metrics([0, 1, 2] * 9, mass=0.2))
    assert "probability" not in compared(metrics([0, 1, 2] * 9, mass=0.6))


def test_overfitting_is_reported_from_the_epoch_of_the_lowest_validation_loss() -> None:
    text = told((0.9, 0.6, 500), (0.5, 0.4, 900), (0.2, 0.5, 700), (0.1, 0.7, 700))
    assert "From epoch 2 to epoch 4" in text
    assert "rose from 0.400 to 0.700" in text


def test_a_flat_validation_loss_is_not_said_to_rise() -> None:
    text = told((0.9, 0.4001, 900), (0.2, 0.4002, 700))
    assert "stayed at 0.400" in text
    assert "rose" not in text


def test_validation_loss_still_falling_is_not_overfitting() -> None:
    assert "overfitting" not in told((0.9, 0.6, 500), (0.5, 0.4, 900))


def test_both_losses_rising_is_not_overfitting() -> None:
    assert "overfitting" not in told((0.5, 0.4, 900), (0.6, 0.5, 500))


def compared_epochs(*adjusted: float) -> str:
    results = epochs((0.9, 0.6, 500), (0.5, 0.5, 895), (0.45, 0.4, 900))
    comparisons = [
        EpochComparison(number, 1000, 20, 15, p, p) for number, p in enumerate(adjusted, start=1)
    ]
    return texts(training_warnings(results, select(results), comparisons))


def test_a_lead_within_noise_names_the_epochs_that_do_not_differ() -> None:
    text = compared_epochs(0.001, 0.4)
    assert "the selected epoch 3 is not distinguishable from epoch 2 (" in text
    assert "2 compared epochs" in text


def test_a_clear_lead_gives_no_warning() -> None:
    assert compared_epochs(0.001, 0.01) == ""


def test_a_slice_that_became_significantly_worse_is_reported() -> None:
    whole = outcome(Spec()).slices[0]
    worse = replace(whole, name="long texts", change=-0.2, p=0.0001, adjusted_p=0.001)
    (finding,) = slice_warnings([worse, replace(whole, p=0.5, adjusted_p=1.0)])
    assert "“long texts” (−20.0 points" in finding.text
    assert (finding.code, finding.figures) == ("slices-worse", {"worse": 1, "judged": 2})
    assert list(slice_warnings([replace(worse, adjusted_p=0.2)])) == []
    assert list(slice_warnings([replace(worse, change=0.2)])) == []


def test_unbalanced_labels_are_reported_with_counts() -> None:
    (finding,) = data_warnings(manifest((60, 30, 30)))
    assert finding.figures == {"split": "test", "most": 60, "least": 30}
    assert (
        finding.text
        == "Labels are unbalanced in the test rows: 60 entailment, 30 neutral and 30 contradiction."
    )
    assert list(data_warnings(manifest((40, 30, 30)))) == []


def test_warnings_of_the_subset_are_passed_through() -> None:
    noted = replace(manifest((30, 30, 30)), warnings=("test: 3 premises shared",))
    assert list(data_warnings(noted)) == [Finding("data", {}, "test: 3 premises shared")]
