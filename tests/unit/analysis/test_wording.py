"""Figures as text: rounding that cannot mislead, units, and missing values."""

from __future__ import annotations

import pytest

from nlijob.analysis import wording


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
    assert wording.points(0.0001) == "+< 0.1 points"
    assert wording.points(-0.0001) == "\N{MINUS SIGN}< 0.1 points"
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
