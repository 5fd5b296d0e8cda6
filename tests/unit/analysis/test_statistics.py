"""Intervals and tests, compared with independent implementations."""

from __future__ import annotations

import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from nlijob.analysis.statistics import (
    holm,
    mcnemar_p,
    narrower,
    paired_difference_interval,
    wilson_interval,
)

SHARES = [(0, 1), (1, 1), (0, 98), (98, 98), (1, 98), (53, 98), (97, 98), (6789, 9824)]
DISCORDANT = [(0, 0), (1, 0), (5, 5), (6, 5), (12, 3), (34, 12), (0, 40), (480, 510)]


@pytest.mark.parametrize(("correct", "rows"), SHARES)
def test_wilson_interval_agrees_with_statsmodels(correct: int, rows: int) -> None:
    interval = wilson_interval(correct, rows)
    low, high = proportion_confint(correct, rows, method="wilson")
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-12)


def test_wilson_interval_reaches_the_ends_exactly() -> None:
    assert wilson_interval(0, 37).low == 0.0
    assert wilson_interval(37, 37).high == 1.0


@pytest.mark.parametrize(("correct", "rows"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_interval_refuses_impossible_counts(correct: int, rows: int) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        wilson_interval(correct, rows)


@pytest.mark.parametrize(("corrected", "broken"), DISCORDANT)
def test_mcnemar_agrees_with_statsmodels(corrected: int, broken: int) -> None:
    expected = mcnemar([[7, corrected], [broken, 9]], exact=True).pvalue if corrected else None
    if corrected + broken == 0:
        expected = 1.0
    elif expected is None:
        expected = mcnemar([[7, broken], [corrected, 9]], exact=True).pvalue
    assert mcnemar_p(corrected, broken) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_does_not_depend_on_the_direction() -> None:
    assert mcnemar_p(12, 3) == mcnemar_p(3, 12)


def test_mcnemar_of_very_many_rows_is_a_number() -> None:
    assert mcnemar_p(5000, 5000) == 1.0
    assert 0.0 <= mcnemar_p(9000, 100) < 1e-300


@pytest.mark.parametrize(("corrected", "broken"), DISCORDANT)
def test_paired_interval_contains_the_difference(corrected: int, broken: int) -> None:
    rows = max(1, corrected + broken)
    interval = paired_difference_interval(corrected, broken, rows)
    assert -1 <= interval.low <= (corrected - broken) / rows <= interval.high <= 1


def test_paired_interval_is_mirrored_with_the_direction() -> None:
    forward, back = paired_difference_interval(9, 2, 50), paired_difference_interval(2, 9, 50)
    assert (forward.low, forward.high) == pytest.approx((-back.high, -back.low))


def test_paired_interval_narrows_with_more_rows() -> None:
    few, many = paired_difference_interval(9, 2, 50), paired_difference_interval(90, 20, 500)
    assert many.high - many.low < few.high - few.low


def test_paired_interval_refuses_more_changes_than_rows() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        paired_difference_interval(30, 30, 50)


@pytest.mark.parametrize(
    "p_values",
    [
        (0.04,),
        (0.01, 0.02, 0.03),
        (0.5, 0.001, 0.04, 0.04, 1.0),
        (0.02, 0.02, 0.02),
        (1.0, 1.0),
        (0.0, 0.6, 1e-12),
    ],
)
def test_holm_agrees_with_statsmodels(p_values: tuple[float, ...]) -> None:
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(tuple(expected))


def test_holm_of_no_tests_is_none() -> None:
    assert holm(()) == ()


@pytest.mark.parametrize(("correct", "corrected", "broken"), [(87, 50, 5), (0, 0, 98), (98, 0, 0)])
def test_half_widths_now_are_those_of_the_intervals(
    correct: int, corrected: int, broken: int
) -> None:
    found = narrower(correct, corrected, broken, 98, 98)
    uncut = proportion_confint(correct, 98, method="wilson")
    assert found.accuracy_now == pytest.approx((uncut[1] - uncut[0]) / 2)
    if corrected > 0:  # not cut at -1
        gain = paired_difference_interval(corrected, broken, 98)
        assert found.gain_now == pytest.approx((gain.high - gain.low) / 2)
    assert (found.accuracy_full, found.gain_full) == (found.accuracy_now, found.gain_now)


def test_half_widths_in_full_are_those_of_all_rows_with_the_same_shares() -> None:
    found = narrower(87, 50, 5, 100, 10_000)
    low, high = proportion_confint(8700, 10_000, method="wilson")
    gain = paired_difference_interval(5000, 500, 10_000)
    assert found.accuracy_full == pytest.approx((high - low) / 2)
    assert found.gain_full == pytest.approx((gain.high - gain.low) / 2)
    assert (found.rows_now, found.rows_full) == (100, 10_000)


@pytest.mark.parametrize(
    "counts", [(5, 0, 0, 4, 9), (1, 3, 3, 5, 9), (1, 0, 0, 5, 4), (0, 0, 0, 0, 9)]
)
def test_narrower_refuses_impossible_counts(counts: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        narrower(*counts)
