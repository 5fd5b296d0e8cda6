"""Calibration, against scikit-learn and against models whose calibration is known."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from nlijob.analysis.calibration import calibration, calibration_sentence
from nlijob.analysis.statistics import wilson_interval
from nlijob.records.job import Prediction
from tests.effort import lines_run
from tests.unit.analysis.made import prediction


def model(rows: int, seed: int, overconfidence: float = 0.0) -> list[Prediction]:
    """Predictions whose accuracy is their confidence minus `overconfidence`."""
    chance = random.Random(seed)
    made = []
    for index in range(rows):
        confidence = chance.uniform(0.4, 1.0)
        right = chance.random() < confidence - overconfidence
        made.append(prediction(index, 0, 0 if right else 1, confidence))
    return made


def test_reliability_bins_agree_with_scikit_learn() -> None:
    rows = model(300, seed=1)
    right = [row.predicted == row.label for row in rows]
    confidence = [max(row.probabilities) for row in rows]
    accuracy, mean = calibration_curve(right, confidence, n_bins=10, strategy="uniform")
    filled = [found for found in calibration(rows).bins if found.rows]
    assert [found.accuracy for found in filled] == pytest.approx(list(accuracy))
    assert [found.mean_confidence for found in filled] == pytest.approx(list(mean))


def test_brier_score_agrees_with_scikit_learn() -> None:
    rows = model(300, seed=2)
    expected = brier_score_loss(
        [row.label for row in rows],
        [row.probabilities for row in rows],
        labels=[0, 1, 2],
        scale_by_half=False,
    )
    assert calibration(rows).brier == pytest.approx(expected)


def test_brier_score_goes_from_zero_to_two() -> None:
    assert calibration([prediction(0, 0, 0, 1.0)]).brier == 0.0
    assert calibration([prediction(0, 0, 1, 1.0)]).brier == 2.0


def test_ece_is_the_distance_in_the_bins_weighted_by_rows() -> None:
    found = calibration(model(500, seed=3, overconfidence=0.1))
    by_hand = sum(
        own.rows * abs(own.mean_confidence - own.accuracy)
        for own in found.bins
        if own.mean_confidence is not None and own.accuracy is not None
    )
    assert found.ece == pytest.approx(by_hand / 500)


def test_bins_contain_every_row_once_and_include_their_upper_bound() -> None:
    confidences = (0.4, 0.7, 0.71, 0.8, 1.0)
    found = calibration([prediction(i, 0, 0, value) for i, value in enumerate(confidences)])
    assert [own.rows for own in found.bins] == [0, 0, 0, 1, 0, 0, 1, 2, 0, 1]


def test_accuracy_of_a_bin_has_wilsons_interval_and_an_empty_bin_has_none() -> None:
    found = calibration([prediction(i, 0, i % 2, 0.75) for i in range(9)])
    assert found.bins[7].accuracy_interval == wilson_interval(5, 9)
    assert found.bins[3].accuracy_interval is None
    assert found.bins[3].accuracy is None


def test_simulated_ece_agrees_with_perfectly_calibrated_models() -> None:
    errors = [calibration(model(100, seed=seed), simulations=1).ece for seed in range(400)]
    found = calibration(model(100, seed=999))
    assert found.ece_if_calibrated == pytest.approx(float(np.mean(errors)), rel=0.06)
    assert found.ece_if_calibrated_high == pytest.approx(float(np.quantile(errors, 0.95)), rel=0.08)


def test_perfectly_calibrated_models_are_significant_about_once_in_twenty() -> None:
    told = sum(
        calibration(model(100, seed=seed), simulations=300).is_significant for seed in range(300)
    )
    assert 4 <= told <= 30


def test_a_clearly_overconfident_model_is_significant_with_its_direction() -> None:
    found = calibration(model(491, seed=4, overconfidence=0.2))
    assert found.is_significant
    text = calibration_sentence("tuned", found)
    assert "do not match its accuracy: overall, it is overconfident (+" in text


def test_an_underconfident_model_is_called_so() -> None:
    found = calibration([prediction(i, 0, 0, 0.6) for i in range(100)])
    assert "underconfident (\N{MINUS SIGN}40.0 points)" in calibration_sentence("base", found)


def test_errors_that_cancel_out_have_no_direction() -> None:
    modest = [prediction(i, 0, 0, 0.55) for i in range(100)]
    bold = [prediction(i, 0, i % 2, 0.95) for i in range(100)]
    found = calibration(modest + bold)
    assert found.is_significant
    assert calibration_sentence("tuned", found).endswith("do not match its accuracy.")


def test_an_ece_explained_by_few_rows_is_not_significant() -> None:
    found = calibration(model(40, seed=5))
    assert found.ece > 0.03
    text = calibration_sentence("base", found)
    assert "not distinguishable from a calibrated model" in text
    assert "do not match" not in text


def test_a_certain_and_correct_model_is_not_distinguishable_from_calibrated() -> None:
    found = calibration([prediction(i, 0, 0, 1.0) for i in range(50)])
    assert (found.ece, found.ece_if_calibrated_high) == (0.0, 0.0)
    assert not found.is_significant


def test_one_mistake_of_a_certain_model_is_significant() -> None:
    rows = [prediction(i, 0, int(i == 0), 1.0) for i in range(50)]
    assert calibration(rows).is_significant


def test_one_row_is_not_significant_unless_it_was_certain() -> None:
    assert not calibration([prediction(0, 0, 0, 0.5)]).is_significant


def test_the_same_rows_in_any_order_give_the_same_figures() -> None:
    rows = model(200, seed=6)
    assert calibration(rows[::-1]) == calibration(rows)


def test_a_rounding_error_above_one_is_clipped() -> None:
    assert calibration([prediction(0, 0, 0, 1.0000001)]).mean_confidence == 1.0


def test_values_that_are_not_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="outside 0 to 1"):
        calibration([prediction(0, 0, 0, 1.2)])
    with pytest.raises(ValueError, match="no predictions"):
        calibration([])


def test_the_work_grows_with_the_rows_alone() -> None:
    rows = model(2_000, seed=7)
    assert lines_run(lambda: calibration(rows)) < 40 * len(rows)


# ---------------------------------------------------------------- premises


def test_with_one_row_for_each_premise_nothing_changes() -> None:
    rows = model(120, seed=4)
    assert calibration(rows, {row.index: 500 - row.index for row in rows}) == calibration(rows)


def test_copies_of_rows_do_not_make_chance_errors_significant() -> None:
    single = model(60, seed=4)
    copies = [replace(row, index=4 * row.index + copy) for row in single for copy in range(4)]
    premises = {row.index: row.index // 4 for row in copies}
    by_row, by_premise = calibration(copies), calibration(copies, premises)
    assert by_premise.ece == pytest.approx(calibration(single).ece)
    assert by_premise.ece_if_calibrated_high > 1.4 * by_row.ece_if_calibrated_high
    # 2,000 simulations of 60 premises
    assert by_premise.ece_if_calibrated_high == pytest.approx(
        calibration(single).ece_if_calibrated_high, rel=0.1
    )


def test_bins_take_premises_as_units() -> None:
    rows = [prediction(index, 0, index // 3 % 2, 0.75) for index in range(30)]
    (found,) = (
        one
        for one in calibration(rows, {row.index: row.index // 3 for row in rows}).bins
        if one.rows
    )
    by_row = wilson_interval(found.correct, found.rows)
    assert found.accuracy_interval is not None
    assert found.accuracy_interval.low < by_row.low
    assert found.accuracy_interval.high > by_row.high


def test_the_order_of_rows_that_share_premises_changes_nothing() -> None:
    rows = model(90, seed=4)
    premises = {row.index: row.index // 3 for row in rows}
    assert calibration(rows[::-1], premises) == calibration(rows, premises)
