"""The sections on controls, slices and calibration."""

from __future__ import annotations

from dataclasses import replace

from nlijob.report.view.accuracy import accuracy_section
from nlijob.report.view.calibration import calibration_section
from nlijob.report.view.controls import controls_section
from nlijob.report.view.slices import slices_section
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome


def test_controls_that_were_not_requested_are_not_shown() -> None:
    whole = controls_section(outcome(Spec()))
    names = [row.cells[0] for row in whole.table.rows]
    assert names == [
        "always the most frequent label",
        "base model with 3 examples in the prompt",
        "tuned model without the premise",
        "tuned model",
    ]
    bare = controls_section(outcome(Spec(few_shot=0, blank_premise=False)))
    assert [row.cells[0] for row in bare.table.rows] == [names[0], names[3]]
    assert bare.finding == ""
    assert "eval.few_shot=3" in bare.few_shot_hint
    assert whole.few_shot_hint == ""


def test_a_classification_head_is_not_told_to_try_a_prompt() -> None:
    assert controls_section(outcome(Spec(head="sequence-classification"))).few_shot_hint == ""


def test_significant_slices_show_their_direction() -> None:
    results = outcome(Spec())
    section = slices_section(results)
    judged = [one for one in results.slices if one.judged]
    marks = [row.mark for row in section.table.rows]
    assert marks == ["helped" if one.is_significant else "" for one in judged]
    assert "helped" in marks
    assert len(section.meanings) == len(results.slices)


def test_calibration_shows_both_models_and_only_bins_with_rows() -> None:
    results = outcome(Spec())
    section = calibration_section(results)
    assert section.sentences[0].startswith("The base model gave its answers")
    assert section.sentences[1].startswith("The tuned model gave its answers")
    before, after = results.base.calibration.bins, results.tuned.calibration.bins
    used = sum(bool(b.rows or a.rows) for b, a in zip(before, after, strict=True))
    assert len(section.bins.rows) == used < len(before)


def test_the_whole_split_is_suggested_only_if_it_was_not_used() -> None:
    assert "--test-size 0" in accuracy_section(outcome(Spec())).more_rows
    assert accuracy_section(replace(outcome(Spec()), on_all_rows=None)).more_rows == ""
