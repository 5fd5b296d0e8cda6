"""Baselines on the same test rows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nlijob.analysis.controls import build_controls, control_warnings, premise_finding
from nlijob.records.job import Prediction
from nlijob.records.outcome import Control
from tests.unit.analysis.made import NAMES


def rows(gold: Sequence[int], answers: Sequence[int]) -> list[Prediction]:
    return [
        Prediction("test", index, label, answer, (0.0, 0.0, 0.0), None, 1.0, 9)
        for index, (label, answer) in enumerate(zip(gold, answers, strict=True))
    ]


GOLD = [0, 1, 2] * 20 + [1]
RIGHT = rows(GOLD, GOLD)
ALL_ONE = rows(GOLD, [1] * 61)


def built(
    tuned: Sequence[Prediction],
    few_shot: Sequence[Prediction] = (),
    blank: Sequence[Prediction] = (),
) -> tuple[Control, ...]:
    return build_controls(tuned, few_shot, blank, NAMES)


def by_kind(controls: Sequence[Control]) -> dict[str, Control]:
    return {control.kind: control for control in controls}


def test_the_majority_class_is_always_included() -> None:
    (control,) = built(RIGHT)
    assert control.kind == "majority class"
    assert (control.correct, control.rows) == (21, 61)
    assert (control.tuned_over_it.gained, control.tuned_over_it.lost) == (40, 0)
    assert control.tuned_over_it.difference == pytest.approx(40 / 61)


def test_controls_are_compared_row_by_row() -> None:
    answers = [*GOLD[:30], *[(label + 1) % 3 for label in GOLD[30:]]]
    tuned = rows(GOLD, [(GOLD[0] + 1) % 3, *GOLD[1:]])
    control = by_kind(built(tuned, rows(GOLD, answers)))["few-shot"]
    assert (control.tuned_over_it.gained, control.tuned_over_it.lost) == (31, 1)
    assert control.correct == 30


def test_a_control_on_different_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="blank premise"):
        built(RIGHT, [], RIGHT[:-1])


def test_a_model_that_does_as_well_without_the_premise_gets_a_warning() -> None:
    (finding,) = control_warnings(built(RIGHT, [], RIGHT), 0)
    assert "do not show that it uses the premise at all" in finding.text
    assert finding.code == "no-better-than-blank-premise"


def test_a_few_shot_prompt_that_does_as_well_gets_a_warning() -> None:
    (finding,) = control_warnings(built(RIGHT, RIGHT), 3)
    assert "With 3 examples in its prompt" in finding.text
    assert "is not significantly better" in finding.text
    assert (finding.code, finding.figures["shots"]) == ("no-better-than-few-shot", 3)


def test_controls_that_are_clearly_worse_get_no_warning() -> None:
    assert list(control_warnings(built(RIGHT, ALL_ONE, ALL_ONE), 3)) == []


def test_the_premise_finding_claims_only_what_the_paired_test_supports() -> None:
    assert premise_finding(built(RIGHT)) == ""
    assert "not distinguishable from" in premise_finding(built(RIGHT, [], ALL_ONE))
    half = rows(GOLD, [*GOLD[:45], *[0] * 16])
    assert "comes from the hypothesis alone" in premise_finding(built(RIGHT, [], half))


def test_a_control_that_is_clearly_better_is_reported() -> None:
    worse = rows(GOLD, [*GOLD[:30], *[(label + 1) % 3 for label in GOLD[30:]]])
    _, few_shot, blank = control_warnings(built(worse, RIGHT, RIGHT), 3)
    assert "is significantly worse" in few_shot.text
    assert "significantly more than with it" in blank.text


def test_a_claim_on_the_blank_premise_rests_on_its_paired_test_and_not_on_its_interval() -> None:
    gold = [0] * 60 + [1] * 40
    blank = rows(gold, [0] * 60 + [1] * 6 + [0] * 34)  # 66 %: the interval includes 60 %
    controls = built(rows(gold, gold), [], blank)
    assert by_kind(controls)["blank premise"].accuracy_interval.low < 0.6
    text = premise_finding(controls)
    assert "which is significantly more than always answering the most frequent label" in text
    assert "+6.0 points, exact McNemar test, p = 0.031" in text


def test_a_blank_premise_below_the_most_frequent_label_is_said_to_be_less() -> None:
    gold = [0] * 70 + [1] * 30
    text = premise_finding(built(rows(gold, gold), [], rows(gold, [1] * 100)))
    assert "significantly less than always answering the most frequent label" in text


def test_a_tuned_model_no_better_than_the_most_frequent_label_is_reported_with_the_test() -> None:
    tuned = rows(GOLD, [*GOLD[:25], *[(label + 1) % 3 for label in GOLD[25:]]])
    (finding,) = control_warnings(built(tuned), 0)
    assert finding.code == "no-better-than-one-label"
    assert (finding.figures["label"], finding.figures["support"]) == ("neutral", 21)
    assert "Always answering “neutral” would be right for 34.4 % (21 of 61)" in finding.text
    assert "is not distinguishably better (+6.6 points, exact McNemar test, p =" in finding.text


@pytest.mark.parametrize("gold", [[0, 1] * 20 + [2], [1, 0] * 20 + [2], [2] + [1] * 20 + [0] * 20])
def test_equally_frequent_labels_are_named_whatever_the_order_of_the_rows(gold: list[int]) -> None:
    wrong = rows(gold, [(label + 1) % 3 for label in gold])
    controls = built(wrong)
    (finding,) = control_warnings(controls, 0)
    assert controls[0].labels == ("entailment", "neutral")
    assert finding.figures["label"] == "entailment"
    assert "“entailment” (“entailment” and “neutral” are equally frequent)" in finding.text


def test_the_order_of_a_controls_rows_changes_nothing() -> None:
    half = rows(GOLD, [*GOLD[:45], *[0] * 16])
    premises = {row.index: row.index // 3 for row in RIGHT}
    one = build_controls(RIGHT, half, half, NAMES, premises)
    assert build_controls(RIGHT, half[::-1], half[::-1], NAMES, premises) == one
    assert build_controls(RIGHT[::-1], half, half, NAMES, premises) == one
