"""The first screen shows the most severe warnings and hides none."""

from __future__ import annotations

from nlijob.records.outcome import Finding
from nlijob.report.view.warnings import warning_texts, warnings_view


def findings(*codes: str) -> list[Finding]:
    return [Finding(code, {}, f"About {code}.") for code in codes]


def test_three_are_shown_and_the_rest_is_a_click_away() -> None:
    view = warnings_view(
        findings("data", "forgotten", "overfitting", "slices-worse", "one-premise", "unclear-gain")
    )
    codes = [
        [code for group in part for code, _ in group.warnings] for part in (view.shown, view.more)
    ]
    assert codes == [
        ["unclear-gain", "forgotten", "slices-worse"],
        ["one-premise", "data", "overfitting"],
    ]
    assert view.worst == "against"


def test_warnings_of_one_severity_share_a_heading() -> None:
    (first, second) = warnings_view(findings("forgotten", "unclear-gain", "one-premise")).shown
    assert (first.title, len(first.warnings)) == ("Speaks against the result", 1)
    assert (second.title, len(second.warnings)) == ("Limits the result", 2)


def test_the_hidden_ones_are_counted_by_severity() -> None:
    against = findings("unclear-gain", "worse-elsewhere", "no-better-than-few-shot")
    several = warnings_view([*against, *findings("forgotten", "data", "overfitting")])
    assert several.more_title == "3 more warnings: 1 limits the result and 2 are worth knowing"
    alike = warnings_view([*against, *findings("data", "overfitting")])
    assert alike.more_title == "2 more warnings, all of which are worth knowing"
    assert warnings_view([*against, *findings("data")]).more_title == (
        "1 more warning, which is worth knowing"
    )
    assert not warnings_view(against).more_title


def test_the_sentences_alone_have_the_same_order() -> None:
    found = findings("data", "forgotten", "unclear-gain")
    assert warning_texts(found) == ("About unclear-gain.", "About forgotten.", "About data.")
