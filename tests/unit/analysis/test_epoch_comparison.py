"""The selected epoch compared with the others, row by row."""

from __future__ import annotations

import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from nlijob.analysis.epoch_comparison import compare_epochs, epochs_sentence
from nlijob.records.job import Prediction
from tests.unit.analysis.made import answered

GOLD = [0, 1, 2] * 30


def epoch(wrong: range | set[int]) -> list[Prediction]:
    answers = [(g + 1) % 3 if i in wrong else g for i, g in enumerate(GOLD)]
    return answered(GOLD, answers, split="validation")


KEPT = epoch(range(5))
OTHERS = {4: epoch(range(40, 47)), 1: epoch(range(60)), 2: epoch(range(3, 13))}


def test_rows_that_only_one_epoch_labels_correctly_are_counted() -> None:
    found = compare_epochs(KEPT, OTHERS)
    assert [(own.epoch, own.selected_alone, own.other_alone) for own in found] == [
        (1, 55, 0),
        (2, 8, 3),
        (4, 7, 5),
    ]
    assert {own.rows for own in found} == {90}


def test_p_values_agree_with_statsmodels() -> None:
    found = compare_epochs(KEPT, OTHERS)
    raw = [
        mcnemar([[0, own.selected_alone], [own.other_alone, 0]], exact=True).pvalue for own in found
    ]
    assert [own.p for own in found] == pytest.approx(raw)
    adjusted = multipletests(raw, method="holm")[1]
    assert [own.adjusted_p for own in found] == pytest.approx(list(adjusted))


def test_epochs_with_overlapping_intervals_may_still_differ_significantly() -> None:
    (found,) = compare_epochs(epoch(set()), {1: epoch(range(8))})
    assert found.is_significant


def test_a_lead_that_multiple_comparisons_explain_is_within_noise() -> None:
    others = {1: epoch(range(6)), 2: epoch(range(1, 7)), 4: epoch(range(2, 8))}
    found = compare_epochs(epoch(set()), others)
    assert all(own.p < 0.05 for own in found)
    assert not any(own.is_significant for own in found)


def test_a_lead_within_noise_names_the_epochs_and_how_many_were_compared() -> None:
    text = epochs_sentence(3, compare_epochs(KEPT, OTHERS))
    assert text == (
        "On the validation rows, the selected epoch 3 is not distinguishable from epochs 2 and 4 "
        "(exact McNemar test on the same 90 validation rows, Holm-adjusted over 3 compared epochs; "
        "smallest adjusted p = 0.453)."
    )


def test_one_other_epoch_needs_no_adjustment() -> None:
    text = epochs_sentence(2, compare_epochs(KEPT, {1: OTHERS[4]}))
    assert text.startswith(
        "On the validation rows, the selected epoch 2 is not distinguishable from epoch 1 ("
    )
    assert "djusted" not in text


def test_a_clear_lead_comes_with_its_bias() -> None:
    text = epochs_sentence(3, compare_epochs(KEPT, {1: OTHERS[1]}))
    assert text.startswith("Epoch 1 differs significantly from the selected epoch 3 (")
    assert "its lead may be overestimated" in text


def test_epochs_with_the_same_predictions_do_not_differ() -> None:
    (found,) = compare_epochs(KEPT, {1: KEPT[::-1]})
    assert (found.p, found.adjusted_p) == (1.0, 1.0)


def test_a_single_epoch_has_no_comparison() -> None:
    assert compare_epochs(KEPT, {}) == ()
    assert epochs_sentence(1, ()) == ""


def test_rows_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match=r"epoch 4 was scored on different rows \(1 differ\)"):
        compare_epochs(KEPT, {4: KEPT[1:]})
    with pytest.raises(ValueError, match="no rows"):
        compare_epochs([], {1: KEPT})
    with pytest.raises(ValueError, match="labels a row twice"):
        compare_epochs([*KEPT, KEPT[0]], {1: KEPT})
