"""Figures as text: rounding that cannot mislead, units, and missing values."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlijob.analysis import wording
from nlijob.analysis.statistics import wilson_interval
from nlijob.records.intervals import Interval


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1.0, "100.0 %"),
        (0.9996, "> 99.9 %"),
        (0.99999999, "> 99.9 %"),
        (0.999, "99.9 %"),
        (0.0, "0.0 %"),
        (0.0001, "< 0.1 %"),
        (0.5, "50.0 %"),
    ],
)
def test_only_all_and_none_are_shown_as_100_and_0_percent(share: float, text: str) -> None:
    assert wording.percent(share) == text


def test_whole_percent_never_rounds_to_the_ends() -> None:
    assert wording.percent(0.997, 0) == "> 99 %"
    assert wording.percent(0.003, 0) == "< 1 %"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1.00"), (0.999, "> 0.99"), (0.004, "< 0.01"), (0.0, "0.00"), (0.5, "0.50")],
)
def test_only_certain_probabilities_are_shown_as_certain(value: float, text: str) -> None:
    assert wording.probability(value) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0499, "p = 0.0499"),
        (0.04996, "p = 0.04996"),
        (0.05, "p = 0.050"),
        (0.0501, "p = 0.050"),
        (0.0004, "p < 0.001"),
        (1.0, "p = 1.000"),
    ],
)
def test_p_value_is_never_rounded_across_the_threshold(p: float, text: str) -> None:
    assert wording.p_value(p) == text


def test_a_small_change_is_never_shown_as_none() -> None:
    assert wording.points(0.0001) == "+0.01 points"
    assert wording.points(-0.0001) == "\N{MINUS SIGN}0.01 points"
    assert wording.points(1e-12) == "+< 0.000001 points"
    assert wording.points(0.0) == "0.0 points"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0001, "< 0.001 s"),
        (0.01, "0.010 s"),
        (12.34, "12.3 s"),
        (59.4, "59.4 s"),
        (59.97, "1 min 0 s (60 s)"),
        (3599.6, "1 h 0 min (3,600 s)"),
        (125, "2 min 5 s (125 s)"),
        (9033, "2 h 30 min (9,033 s)"),
        (90000, "1 d 1 h (90,000 s)"),
        (None, "not measured"),
    ],
)
def test_duration_is_readable_and_exact(seconds: float | None, text: str) -> None:
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "not measured"), (2**30, "1.00 GiB"), (2**20, "1.0 MiB"), (0, "0.0 MiB")],
)
def test_sizes_are_binary_and_say_so(size: int | None, text: str) -> None:
    assert wording.gib(size) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "EUR 0.00"), (0.00421, "EUR 0.0042"), (0.5, "EUR 0.50"), (1234.5, "EUR 1,234.50")],
)
def test_money_is_rounded_to_cents_unless_it_is_less(amount: float, text: str) -> None:
    assert wording.money(amount, "EUR") == text


@pytest.mark.parametrize(
    ("joules", "text"),
    [(None, "not measured"), (3600, "1.00 Wh (3,600 J)"), (7.2e6, "2.00 kWh (7,200,000 J)")],
)
def test_energy_carries_both_units(joules: float | None, text: str) -> None:
    assert wording.energy(joules) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "not measured"), (0.0, "0"), (1234.5, "1,234"), (9.546, "9.55"), (2e-7, "2.00e-07")],
)
def test_decimals_keep_three_digits(value: float | None, text: str) -> None:
    assert wording.decimal(value) == text


def test_lists_read_as_a_sentence() -> None:
    assert wording.listed(("a",)) == "a"
    assert wording.listed(("a", "b", "c")) == "a, b and c"


# ---------------------------------------------------------------- no false certainty

SHARES = st.floats(0, 1)


def numbers_in(text: str) -> list[float]:
    found = re.findall(r"([<>] )?(\d+\.?\d*)", text)
    return [float(number) for beyond, number in found if not beyond]


@given(SHARES, st.integers(0, 3))
def test_only_all_is_shown_as_100_and_only_none_as_0(share: float, decimals: int) -> None:
    for number in numbers_in(wording.percent(share, decimals)):
        assert (number == 100) <= (share == 1)
        assert (number == 0) <= (share == 0)


@given(SHARES, SHARES)
def test_no_bound_is_rounded_to_certainty(one: float, other: float) -> None:
    low, high = sorted((one, other))
    first, second = wording.interval(Interval(low, high)).removesuffix(" %").split(" to ")
    for text, bound in ((first, low), (second, high)):
        for number in numbers_in(text):
            assert (number == 100) <= (bound == 1)
            assert (number == 0) <= (bound == 0)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_no_bound_of_a_difference_is_rounded_to_certainty(one: float, other: float) -> None:
    low, high = sorted((one, other))
    first, second = wording.points_interval(Interval(low, high)).split(" to ")
    for text, bound in ((first, low), (second, high)):
        assert text.startswith("+") is (bound > 0)
        assert text.startswith(wording.MINUS) is (bound < 0)
        for number in numbers_in(text):
            assert (number == 100) <= (abs(bound) == 1)
            assert (number == 0) <= (bound == 0)


@given(st.floats(0, 1))
def test_no_p_is_rounded_to_certainty_or_across_its_threshold(p: float) -> None:
    for number in numbers_in(wording.p_value(p)):
        assert number > 0
        assert (number == 1) <= (p == 1)
        assert (number < 0.05) is (p < 0.05)


@given(st.floats(-1, 1))
def test_no_difference_is_rounded_to_none_or_all(difference: float) -> None:
    for text, whole in (
        (wording.points(difference).removesuffix(" points"), 100),
        (wording.signed_probability(difference), 1),
    ):
        assert text.startswith("+") is (difference > 0)
        assert text.startswith(wording.MINUS) is (difference < 0)
        for number in numbers_in(text):
            assert (number == whole) <= (abs(difference) == 1)
            assert (number == 0) <= (difference == 0)


@given(st.floats(-20, 20), st.integers(0, 4))
def test_only_no_difference_of_losses_and_metrics_is_shown_as_none(
    value: float, decimals: int
) -> None:
    for text in (wording.loss_difference(value), wording.metric(value)):
        assert all((number == 0) <= (value == 0) for number in numbers_in(text))
    assert all((n == 0) <= (value == 0) for n in numbers_in(wording.signed(value, decimals)))


@given(SHARES, SHARES)
def test_a_difference_is_rounded_once(before: float, after: float) -> None:
    (shown,) = numbers_in(re.sub("[<>] ", "", wording.points(after - before)))
    assert shown == pytest.approx(100 * abs(after - before), abs=0.05 + 1e-9)


@given(st.floats(0, 1e12, allow_subnormal=False))  # a 3,600th of it is more than 0
def test_only_nothing_is_shown_as_nothing(amount: float) -> None:
    texts = (
        wording.whole(amount),
        wording.gib(amount),
        wording.energy(amount),
        wording.money(amount, "EUR"),
        wording.emissions(amount),
        wording.short_seconds(amount),
        wording.decimal(amount),
    )
    for text in texts:
        assert all(
            (number == 0) <= (amount == 0) for number in numbers_in(text.replace(",", ""))
        ), text


@given(st.floats(1e-4, 1e6), st.integers(1, 4))
def test_a_decimal_has_the_digits_that_are_asked_for(value: float, digits: int) -> None:
    text = wording.decimal(value, digits).replace(",", "")
    if "e" not in text:
        assert float(text) == pytest.approx(value, rel=0.5 * 10 ** (1 - digits) * (1 + 1e-9))
        shown = text.lstrip("0.").replace(".", "")
        assert len(shown) == max(digits, len(text.partition(".")[0]))


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_one_is_singular_and_all_else_plural(part: int, whole: int) -> None:
    text = wording.part_of(min(part, whole), whole, "row")
    assert (" row " in text) is (whole == 1)
    assert (" rows " in text) is (whole != 1)
    assert wording.which(whole, "was", "were") == ("was" if whole == 1 else "were")


@given(st.floats(0, 20))
def test_only_no_loss_is_shown_as_none(value: float) -> None:
    assert (wording.loss(value) == "0.000") is (value == 0)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        (Interval(0.79, 0.922), "79.0 to 92.2 %"),
        (Interval(0.999609, 1.0), "99.96 to 100.00 %"),
        (Interval(0.0, 0.00039), "0.00 to 0.04 %"),
        (Interval(0.9, 0.99951), "90.00 to 99.95 %"),
        (Interval(0.0, 1.0), "0.0 to 100.0 %"),
        (Interval(0.5, 1 - 1e-12), "50.000000 to > 99.999999 %"),
    ],
)
def test_bounds_have_the_decimals_that_they_need(bounds: Interval, text: str) -> None:
    assert wording.interval(bounds) == text


def test_all_of_many_rows_right_is_not_shown_as_certain() -> None:
    assert wording.interval(wilson_interval(9824, 9824)) == "99.96 to 100.00 %"


def test_differences_of_probabilities_and_losses_keep_their_sign() -> None:
    assert wording.signed_probability(-0.004) == "\N{MINUS SIGN}0.004"
    assert wording.signed_probability(0.998) == "+0.998"
    assert wording.loss_difference(-0.0001) == "\N{MINUS SIGN}0.0001"
    assert wording.points(0.99996) == "+99.996 points"
    assert wording.points(0.0) == "0.0 points"
