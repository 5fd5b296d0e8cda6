"""Sentences on the range of the gain and on using more rows."""

from __future__ import annotations

import re

import pytest

from nlijob.analysis.precision import narrower_sentence, plain_gain
from nlijob.analysis.statistics import mcnemar_p, narrower, paired_difference_interval
from nlijob.records.outcome import Interval


@pytest.mark.parametrize(
    ("low", "high", "p", "text"),
    [
        (0.212, 0.445, 0.001, "the gain could be anything from 21 to 45 points"),
        (0.004, 0.005, 0.001, "the gain could be anything from just above 0 to 1 point"),
        (-0.203, -0.027, 0.01, "the loss could be anything from 2 to 21 points"),
        (-0.04, 0.12, 0.3, "the change could be anything from a loss of 4 points to a gain of 12"),
        (-0.001, 0.12, 0.03, "from a loss of 1 point to a gain of 12 points"),
        (0.0, 0.12, 0.04, "the change could be anything from no change to a gain of 12 points"),
        (-0.12, 0.0, 0.04, "anything from a loss of 12 points to no change"),
        (0.01, 0.12, 0.06, "the change could be anything from no change to a gain of 12 points"),
        (-0.12, -0.01, 0.06, "anything from a loss of 12 points to no change"),
        (0.0, 0.0, 1.0, "neither a gain nor a loss was found"),
    ],
)
def test_the_gain_is_given_in_whole_points(low: float, high: float, p: float, text: str) -> None:
    assert text in plain_gain(100, Interval(low, high), p)


def test_the_sentence_states_its_rows_and_level() -> None:
    text = plain_gain(9824, Interval(0.3, 0.4), 0.0)
    assert text == (
        "With 9,824 test rows, the gain could be anything from 30 to 40 points (95 % interval)."
    )


def test_no_sentence_is_narrower_than_its_interval() -> None:
    for corrected in range(0, 60, 3):
        for broken in range(0, 40, 3):
            bounds = paired_difference_interval(corrected, broken, 100)
            text = plain_gain(100, bounds, mcnemar_p(corrected, broken))
            numbers = [int(number) for number in re.findall(r"(\d+)(?= to| point)", text)]
            widest = max(abs(bounds.low), abs(bounds.high))
            assert max(numbers) >= 100 * widest - 1e-6
            if "no change" not in text and "loss of" not in text and "above 0" not in text:
                assert min(numbers) <= 100 * min(abs(bounds.low), abs(bounds.high)) + 1e-6


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        plain_gain(0, Interval(0.0, 0.1), 0.5)


def test_all_rows_are_compared_with_those_used() -> None:
    assert narrower_sentence(narrower(87, 50, 5, 98, 9824)) == (
        "With all test rows (about 9,824 instead of 98) and the same proportions, the 95 % "
        "interval of the tuned accuracy would be about ±0.6 points instead of ±6.3, and that of "
        "the gain about ±1.2 instead of ±11.7."
    )


def test_there_is_no_projection_if_all_rows_were_used() -> None:
    assert narrower_sentence(narrower(87, 50, 5, 98, 98)) == ""
