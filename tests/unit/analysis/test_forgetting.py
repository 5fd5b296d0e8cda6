"""The loss on general text before and after tuning, paired by text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray

from nlijob.analysis.forgetting import (
    FORGOT,
    change_interval,
    forgetting_sentence,
    forgetting_warnings,
    loss_change,
    measure_forgetting,
    trials_sentence,
)
from nlijob.records.forgetting import Forgetting, GeneralText, TextLoss

Values = Sequence[float] | NDArray[Any]
NUMBERS = range(1, 41)
TEXTS = [GeneralText(number, f"Text {number}.", "made up") for number in NUMBERS]
RANDOM = np.random.default_rng(5)
TOKENS = RANDOM.integers(20, 200, len(TEXTS))
BEFORE = RANDOM.normal(2.5, 0.3, len(TEXTS))
RISE = RANDOM.normal(0.2, 0.1, len(TEXTS))


def losses(values: Values) -> list[TextLoss]:
    columns = zip(NUMBERS, TOKENS.tolist(), values, strict=True)
    return [TextLoss(number, tokens, float(value)) for number, tokens, value in columns]


def measured(*rises: Values) -> Forgetting:
    tuned = {f"seed-{at}": losses(BEFORE + np.array(rise)) for at, rise in enumerate(rises)}
    found = measure_forgetting("general", TEXTS, losses(BEFORE), tuned, "seed-0")
    assert found is not None
    return found


def test_losses_are_means_over_tokens_and_not_over_texts() -> None:
    found = measured(RISE)
    assert found.tokens == TOKENS.sum()
    assert found.base_loss == pytest.approx(np.average(BEFORE, weights=TOKENS))
    assert found.tuned_loss == pytest.approx(np.average(BEFORE + RISE, weights=TOKENS))
    assert found.base_perplexity == pytest.approx(math.exp(found.base_loss))
    assert found.change.difference == pytest.approx(found.tuned_loss - found.base_loss)


def test_the_interval_is_that_of_a_weighted_mean_with_robust_variance() -> None:
    fit = sm.WLS(RISE, np.ones(len(RISE)), weights=TOKENS).fit(cov_type="HC1", use_t=True)
    low, high = fit.conf_int()[0]
    bounds = change_interval(RISE, TOKENS.astype(float))
    assert bounds is not None
    # t's point is computed by an expansion whose error is below 0.1 %
    assert (bounds.low, bounds.high) == pytest.approx((low, high), abs=1e-3 * (high - low))


def test_the_interval_holds_the_true_change_in_19_of_20_samples() -> None:
    random, true, held = np.random.default_rng(1), 0.05, 0
    for _ in range(2000):
        tokens = random.integers(20, 250, 60).astype(float)
        bounds = change_interval(true + 0.1 * random.standard_t(5, 60), tokens)
        assert bounds is not None
        held += bounds.low <= true <= bounds.high
    assert 0.935 <= held / 2000 <= 0.965  # three standard errors of 0.5 points


def test_one_text_has_no_interval() -> None:
    assert change_interval(np.array([0.1]), np.array([40.0])) is None


def test_the_test_agrees_with_the_exact_one_on_few_texts() -> None:
    change, tokens = np.array([0.1, 0.3, -0.1, 0.2, 0.4]), np.array([10.0, 30, 20, 50, 40])
    sums = change * tokens
    signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1)
    exact = float((np.abs(sums @ signs) >= abs(sums.sum()) - 1e-9).mean())
    assert loss_change(change, tokens).p == pytest.approx(exact, abs=0.01)  # 10,000 random flips


def test_the_same_losses_are_no_change_and_no_claim() -> None:
    found = measured(np.zeros(len(TEXTS)))
    assert found.change.difference == 0
    assert found.change.interval is not None
    assert found.change.interval.low == found.change.interval.high == 0
    assert found.change.p == 1
    assert (found.worse, found.better, found.worst) == (0, 0, ())
    assert "exactly the same before and after" in forgetting_sentence(found)
    assert not list(forgetting_warnings(found))


def test_the_texts_whose_loss_rose_most_come_first() -> None:
    found = measured(RISE)
    rises = [one.tuned_loss - one.base_loss for one in found.worst]
    assert rises == pytest.approx(sorted(RISE, reverse=True)[: len(rises)])
    assert found.worst[0].content == f"Text {NUMBERS[int(RISE.argmax())]}."
    assert found.worse + found.better == len(TEXTS)


def test_a_clear_rise_is_a_warning_that_says_by_how_much() -> None:
    (warning,) = forgetting_warnings(measured(RISE))
    assert warning.code == "forgotten"
    assert warning.figures["difference"] == pytest.approx(np.average(RISE, weights=TOKENS))
    assert "rose from" in warning.text
    assert "predicts such text worse" in warning.text


@pytest.mark.parametrize(
    ("rise", "said"),
    [
        (RISE / RISE.mean() * FORGOT / 2, "less than the 0.05 nats that count as forgetting"),
        (-RISE, "fell from"),
        (RANDOM.normal(0, 1, len(TEXTS)), "not distinguishable from that before"),
    ],
)
def test_a_small_an_unclear_or_no_rise_is_told_and_no_warning(rise: Values, said: str) -> None:
    found = measured(rise)
    assert said in forgetting_sentence(found)
    assert not list(forgetting_warnings(found))


def test_texts_that_one_model_could_not_measure_are_left_out_of_both() -> None:
    tuned = losses(BEFORE + 0.1)
    tuned[3] = TextLoss(4, tuned[3].tokens, None)
    found = measure_forgetting("general", TEXTS, losses(BEFORE)[1:], {"": tuned}, "")
    assert found is not None
    assert (found.texts, found.left_out) == (len(TEXTS) - 2, 2)
    assert found.tokens == TOKENS.sum() - TOKENS[0] - TOKENS[3]


def test_without_a_common_text_nothing_was_measured() -> None:
    base = losses(BEFORE)
    assert measure_forgetting("general", [], [], {"": []}, "") is None
    assert measure_forgetting("general", TEXTS, base[:3], {"": base[3:]}, "") is None


def test_texts_with_other_numbers_of_tokens_are_damaged_records() -> None:
    tuned = losses(BEFORE)
    tuned[0] = TextLoss(1, tuned[0].tokens + 1, 2.0)
    with pytest.raises(ValueError, match="other numbers of tokens"):
        measure_forgetting("general", TEXTS, losses(BEFORE), {"": tuned}, "")


def test_several_trainings_have_a_change_each_and_a_mean() -> None:
    found = measured(RISE, RISE + 0.1, np.zeros(len(TEXTS)))
    assert [one.name for one in found.trials] == ["seed-0", "seed-1", "seed-2"]
    assert found.change == found.trials[0].change
    assert found.trials[2].change.difference == 0
    assert found.mean_change is not None
    mean = np.mean([one.change.difference for one in found.trials])
    assert found.mean_change.difference == pytest.approx(mean)
    assert "by more than 0.05 nats in 2 of them" in trials_sentence(found)


def test_one_training_has_no_mean_over_trainings() -> None:
    found = measured(RISE)
    assert (found.trials, found.mean_change) == ((), None)
    assert trials_sentence(found) == ""


def test_a_huge_loss_has_no_perplexity() -> None:
    assert measured(np.full(len(TEXTS), 2000.0)).tuned_perplexity is None
