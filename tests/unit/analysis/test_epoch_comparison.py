"""The selected epoch compared with the others, row by row."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from nlijob.analysis.epoch_comparison import (
    compare_epochs,
    epochs_sentence,
    loss_change,
    loss_sentence,
)
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


# ---------------------------------------------------------------- validation loss


def with_losses(losses: Sequence[float]) -> list[Prediction]:
    return [replace(row, loss=loss) for row, loss in zip(epoch(set()), losses, strict=True)]


CHANCE = random.Random(3)
FIRST = [1.093 + CHANCE.gauss(0, 0.4) for _ in GOLD]
NOISE = [CHANCE.gauss(0, 0.2) for _ in GOLD]


def test_a_rise_of_the_loss_within_noise_is_not_significant() -> None:
    shift = 0.004 - sum(NOISE) / len(NOISE)
    last = [loss + noise + shift for loss, noise in zip(FIRST, NOISE, strict=True)]
    found = loss_change({1: with_losses(FIRST), 2: with_losses(last)})
    assert found is not None
    assert (found.from_epoch, found.to_epoch) == (1, 2)
    assert found.difference == pytest.approx(0.004)
    assert not found.is_significant
    assert "is 0.004 nats above" in loss_sentence(found)
    assert "not distinguishable from no change" in loss_sentence(found)


def test_a_rise_of_the_loss_on_most_rows_is_significant() -> None:
    last = [loss + abs(noise) for loss, noise in zip(FIRST, NOISE, strict=True)]
    found = loss_change({1: with_losses(FIRST), 2: with_losses(last)})
    assert found is not None
    assert found.is_significant
    assert "more than chance explains" in loss_sentence(found)


def test_p_is_adjusted_for_the_choice_of_the_lowest_epoch() -> None:
    last = [loss + 0.3 * noise + 0.02 for loss, noise in zip(FIRST, NOISE, strict=True)]
    worse = [loss + 1 for loss in FIRST]
    two = loss_change({1: with_losses(FIRST), 4: with_losses(last)})
    four = loss_change(
        {1: with_losses(FIRST), 2: with_losses(worse), 3: with_losses(worse), 4: with_losses(last)}
    )
    assert two is not None
    assert four is not None
    assert four.p == two.p == two.adjusted_p
    assert four.adjusted_p == pytest.approx(min(1, 3 * two.p))


def test_a_last_epoch_with_the_lowest_loss_has_no_change_to_report() -> None:
    lower = [loss - 0.1 for loss in FIRST]
    assert loss_change({1: with_losses(FIRST), 2: with_losses(lower)}) is None
    assert loss_change({1: with_losses(FIRST), 2: with_losses(FIRST)}) is None
    assert loss_sentence(None) == ""


def test_rows_of_one_premise_are_one_observation_in_both_comparisons() -> None:
    premises = {row.index: row.index // 30 for row in KEPT}
    (found,) = compare_epochs(KEPT, {2: epoch(range(60))}, premises)
    assert (found.premises, found.p) == (3, 0.5)
    last = [loss + 0.1 for loss in FIRST]
    change = loss_change({1: with_losses(FIRST), 2: with_losses(last)}, premises)
    assert change is not None
    assert change.premises == 3
    assert change.p == pytest.approx(0.25, abs=0.02)  # 2 of 8 exchanges; 4 standard errors
    assert not change.is_significant
