"""Baselines on the same test rows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nlijob.analysis.controls import build_controls, control_warnings, premise_finding
from nlijob.records.job import Prediction
from nlijob.records.outcome import Control


def rows(gold: Sequence[int], answers: Sequence[int]) -> list[Prediction]:
    return [
        Prediction("test", index, label, answer, (0.0, 0.0, 0.0), None, 1.0, 9)
        for index, (label, answer) in enumerate(zip(gold, answers, strict=True))
    ]


GOLD = [0, 1, 2] * 20 + [1]
RIGHT = rows(GOLD, GOLD)
ALL_ONE = rows(GOLD, [1] * 61)


def by_kind(controls: Sequence[Control]) -> dict[str, Control]:
    return {control.kind: control for control in controls}


def test_the_majority_class_is_always_included() -> None:
    (control,) = build_controls(RIGHT, [], [])
    assert control.kind == "majority class"
    assert (control.correct, control.rows) == (21, 61)
    assert (control.tuned_over_it.gained, control.tuned_over_it.lost) == (40, 0)
    assert control.tuned_over_it.difference == pytest.approx(40 / 61)


def test_controls_are_compared_row_by_row() -> None:
    answers = [*GOLD[:30], *[(label + 1) % 3 for label in GOLD[30:]]]
    tuned = rows(GOLD, [(GOLD[0] + 1) % 3, *GOLD[1:]])
    control = by_kind(build_controls(tuned, rows(GOLD, answers), []))["few-shot"]
    assert (control.tuned_over_it.gained, control.tuned_over_it.lost) == (31, 1)
    assert control.correct == 30


def test_a_control_on_different_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="blank premise"):
        build_controls(RIGHT, [], RIGHT[:-1])


def test_a_model_that_does_as_well_without_the_premise_gets_a_warning() -> None:
    (finding,) = control_warnings(build_controls(RIGHT, [], RIGHT), 0)
    assert "do not show that it uses the premise at all" in finding.text
    assert finding.code == "no-better-than-blank-premise"


def test_a_few_shot_prompt_that_does_as_well_gets_a_warning() -> None:
    (finding,) = control_warnings(build_controls(RIGHT, RIGHT, []), 3)
    assert "With 3 examples in its prompt" in finding.text
    assert "is not significantly better" in finding.text
    assert (finding.code, finding.figures["shots"]) == ("no-better-than-few-shot", 3)


def test_controls_that_are_clearly_worse_get_no_warning() -> None:
    assert list(control_warnings(build_controls(RIGHT, ALL_ONE, ALL_ONE), 3)) == []


def test_the_premise_finding_claims_only_what_the_interval_supports() -> None:
    assert premise_finding(build_controls(RIGHT, [], [])) == ""
    assert "not clearly more" in premise_finding(build_controls(RIGHT, [], ALL_ONE))
    half = rows(GOLD, [*GOLD[:45], *[0] * 16])
    assert "comes from the hypothesis alone" in premise_finding(build_controls(RIGHT, [], half))


def test_a_control_that_is_clearly_better_is_reported() -> None:
    worse = rows(GOLD, [*GOLD[:30], *[(label + 1) % 3 for label in GOLD[30:]]])
    few_shot, blank = control_warnings(build_controls(worse, RIGHT, RIGHT), 3)
    assert "is significantly worse" in few_shot.text
    assert "significantly more than with it" in blank.text
