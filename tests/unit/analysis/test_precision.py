"""Sentences on the range of the gain and on using more rows."""

from __future__ import annotations

import pytest

from nlijob.analysis.precision import narrower_sentence, plain_gain
from nlijob.analysis.statistics import narrower
from nlijob.records.intervals import Interval


@pytest.mark.parametrize(
    ("low", "high", "p", "text"),
    [
        (0.212, 0.445, 0.001, "the gain could be anything from 21.2 to 44.5 points (95"),
        (0.0004, 0.005, 0.001, "the gain could be anything from 0.04 to 0.50 points (95"),
        (-0.203, -0.027, 0.01, "the loss could be anything from 2.7 to 20.3 points (95"),
        (-0.04, 0.12, 0.3, "the change could be anything from −4.0 to +12.0 points (95"),
        (0.0, 0.12, 0.3, "the change could be anything from 0.0 to +12.0 points (95"),
        (0.0, 0.0, 1.0, "neither a gain nor a loss was found"),
    ],
)
def test_the_gain_has_the_decimals_of_the_table(
    low: float, high: float, p: float, text: str
) -> None:
    assert text in plain_gain(100, Interval(low, high), p)


def test_the_sentence_states_its_rows_and_level() -> None:
    text = plain_gain(9824, Interval(0.3, 0.4), 0.0)
    assert text == (
        "With 9,824 test rows, the gain could be anything from 30.0 to 40.0 points (95 % interval)."
    )


def test_premises_are_counted_where_they_are_the_units() -> None:
    assert "With 98 test rows on 33 premises," in plain_gain(98, Interval(0.3, 0.4), 0.0, 33)


@pytest.mark.parametrize(
    ("low", "high", "p", "text"),
    [
        (0.01, 0.12, 0.06, "but the test does not exclude that there is no change"),
        (-0.12, -0.01, 0.06, "but the test does not exclude that there is no change"),
        (-0.001, 0.12, 0.03, "so it is borderline"),
        (-0.12, 0.0, 0.04, "so it is borderline"),
    ],
)
def test_interval_and_test_that_disagree_are_not_hidden(
    low: float, high: float, p: float, text: str
) -> None:
    assert text in plain_gain(100, Interval(low, high), p)


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        plain_gain(0, Interval(0.0, 0.1), 0.5)


def test_all_rows_are_compared_with_those_used() -> None:
    assert narrower_sentence(narrower(87, 50, 5, 98, 9824)) == (
        "With all test rows (about 9,824 instead of 98) and the same proportions, the 95 % "
        "interval of the tuned accuracy would be about ±0.6 points instead of ±6.3, and that of "
        "the gain about ±1.2 instead of ±11.7; they would be wider if more of those rows share a "
        "premise."
    )


def test_there_is_no_projection_if_all_rows_were_used() -> None:
    assert narrower_sentence(narrower(87, 50, 5, 98, 98)) == ""
