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
    premise_warnings,
    slice_warnings,
    training_warnings,
)
from nlijob.records.intervals import Interval, PairedDifference
from nlijob.records.job import EpochResult, Manifest, Memory, Prediction, SplitManifest, SplitScore
from nlijob.records.outcome import EpochComparison, Finding, LossChange, Metrics, PremiseGroups
from tests.synthetic import Spec
from tests.unit.analysis.made import trainings
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
    change = PairedDifference(9, 2, tuned.accuracy - base.accuracy, Interval(-0.1, 0.1), p)
    return texts(comparison_warnings(base, tuned, change, ()))


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


def told(*figures: tuple[float, float, int], p: float = 0.001) -> str:
    results = epochs(*figures)
    losses = {one.epoch: one.validation.loss for one in results}
    last, lowest = max(losses), min(losses, key=losses.__getitem__)
    change = LossChange(lowest, last, 1000, losses[last] - losses[lowest], p, p)
    return texts(
        training_warnings(results, select(results), (), change if last != lowest else None)
    )


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


@pytest.mark.parametrize(
    ("adjusted_p", "text"),
    [
        (0.2, "not significant, adjusted p = 0.200"),
        (0.01, "significant, adjusted p = 0.010"),
        (None, "too few rows for a test"),
    ],
)
def test_a_lower_recall_is_reported_with_both_counts_and_its_test(
    adjusted_p: float | None, text: str
) -> None:
    lost = replace(
        outcome(Spec()).slices[0],
        family="gold label",
        key="contradiction",
        rows=30,
        base_correct=30,
        tuned_correct=25,
        change=-5 / 30,
        adjusted_p=adjusted_p,
    )
    change = PairedDifference(9, 2, 0.1, Interval(0.1, 0.1), 0.001)
    others = [replace(lost, key="neutral", change=0.1), replace(lost, family="tag")]
    (finding,) = comparison_warnings(GOOD, GOOD, change, [lost, *others])
    assert finding.code == "worse-recall"
    assert "fewer of the “contradiction” rows: 30 before, 25 after, of 30 (recall" in finding.text
    assert f"→ 83.3 %; {text})" in finding.text


def test_a_low_probability_of_the_label_tokens_is_reported() -> None:
    assert "put 20.0 % of its probability" in compared(metrics([0, 1, 2] * 9, mass=0.2))
    assert "probability" not in compared(metrics([0, 1, 2] * 9, mass=0.6))


def test_overfitting_is_reported_from_the_epoch_of_the_lowest_validation_loss() -> None:
    text = told((0.9, 0.6, 500), (0.5, 0.4, 900), (0.2, 0.5, 700), (0.1, 0.7, 700))
    assert "From epoch 2 to epoch 4" in text
    assert "rose from 0.400 to 0.700" in text


def test_a_rise_of_the_validation_loss_that_chance_explains_is_no_sign_of_overfitting() -> None:
    rise = ((0.9, 1.093, 900), (0.2, 1.097, 700))
    assert "overfitting" not in told(*rise, p=0.05)
    assert "overfitting" in told(*rise, p=0.0499)


def test_test_rows_that_all_share_one_premise_are_reported() -> None:
    (finding,) = premise_warnings(PremiseGroups(12, 1, 12))
    assert finding.code == "one-premise"
    assert "All 12 test rows have the same premise" in finding.text
    assert list(premise_warnings(PremiseGroups(12, 2, 11))) == []
    assert list(premise_warnings(PremiseGroups(1, 1, 1))) == []


def test_validation_loss_still_falling_is_not_overfitting() -> None:
    assert "overfitting" not in told((0.9, 0.6, 500), (0.5, 0.4, 900))


def test_both_losses_rising_is_not_overfitting() -> None:
    assert "overfitting" not in told((0.5, 0.4, 900), (0.6, 0.5, 500))


def compared_epochs(*adjusted: float) -> str:
    results = epochs((0.9, 0.6, 500), (0.5, 0.5, 895), (0.45, 0.4, 900))
    comparisons = [
        EpochComparison(number, 1000, 20, 15, p, p) for number, p in enumerate(adjusted, start=1)
    ]
    return texts(training_warnings(results, select(results), comparisons, None))


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


@pytest.mark.parametrize(("accuracies", "unclear"), [((0.5, 0.52, 0.5), 1), ((0.9, 0.88, 0.9), 0)])
def test_with_several_trainings_the_mean_change_is_unclear_and_not_that_of_one(
    accuracies: tuple[float, ...], unclear: int
) -> None:
    for p in (1e-9, 1.0):  # of the kept training
        of_kept = PairedDifference(9, 2, 0.1, Interval(0.05, 0.15), p)
        found = list(comparison_warnings(GOOD, GOOD, of_kept, (), trainings(accuracies)))
        assert [one.code for one in found].count("unclear-gain") == unclear
        if unclear:
            assert found[0].figures["trainings"] == 3
            assert "over 3 trainings on" in found[0].text
            assert "for other trainings and other rows" in found[0].text
