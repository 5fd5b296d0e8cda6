"""Preparing text for a page."""

from __future__ import annotations

from nlijob.report.view.text import as_name, percent_or, unbroken, visible


def test_control_characters_become_visible() -> None:
    assert visible("a\x00b\x1b\n") == "a\u2400b\u241b\n"


def test_figures_stay_with_their_units() -> None:
    assert unbroken("p = 0.02 on 5 % in 3 s of 4 seconds") == (
        "p\u00a0=\u00a00.02 on 5\u00a0% in 3\u00a0s of 4 seconds"
    )


def test_a_share_of_zero_differs_from_a_missing_one() -> None:
    assert percent_or(0.0, "no rows") == "0.0 %"
    assert percent_or(None, "no rows") == "no rows"


def test_a_name_does_not_turn_the_sentence_around_it() -> None:
    assert as_name("run \u202e2\u2066\x01") == "run \ufffd2\ufffd␁"
    assert as_name("رجل") == "\u2068رجل\u2069"
    assert as_name("nightly-2026") == "nightly-2026"
