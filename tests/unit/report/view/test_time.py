"""The report's section on time and execution mode."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest

from nlijob.records.job import Plan
from nlijob.records.outcome import PartTime
from nlijob.report.view.summary import summary_section
from nlijob.report.view.time import time_section
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome, several_trainings

RECOMPUTED = ", activations recomputed in the backward pass (gradient checkpointing)"


def facts(spec: Spec) -> dict[str, tuple[str, str]]:
    return {fact.name: (fact.value, fact.note) for fact in time_section(outcome(spec), ()).facts}


def test_a_fast_mode_shows_how_it_was_checked_and_what_was_refused() -> None:
    shown = facts(Spec())
    assert shown["execution mode"] == ("CUDA graphs on packed rows", "weights as loaded")
    assert shown["checked against the plain loop"][0] == "0.21 %"
    assert shown["warm-up"][0] == "6.4 s"
    (refused,) = time_section(outcome(Spec()), ()).refused
    assert "4.1 GiB are free" in refused


def test_a_difference_that_was_not_measured_is_not_shown_as_none() -> None:
    results = outcome(Spec())
    plan = dataclasses.replace(results.plan, logits_difference=None)
    facts = time_section(dataclasses.replace(results, plan=plan), ()).facts
    (check,) = (fact for fact in facts if fact.name == "checked against the plain loop")
    assert check.value == "not measured"


def test_a_cpu_run_does_not_mention_graphs() -> None:
    shown = facts(Spec(gpu=False))
    assert shown["execution mode"] == ("packed rows", "4-bit weights also kept dequantised")
    assert shown["checked against the plain loop"][0] == "< 0.01 %"
    assert time_section(outcome(Spec(gpu=False)), ()).refused == ()


def test_recomputed_activations_are_mentioned() -> None:
    for gpu in (True, False):
        results = outcome(Spec(gpu=gpu))
        plan = dataclasses.replace(results.plan, activations="recomputed")
        facts = time_section(dataclasses.replace(results, plan=plan), ()).facts
        (mode,) = (fact for fact in facts if fact.name == "execution mode")
        assert mode.note.endswith(RECOMPUTED)


def test_compiled_layers_are_mentioned() -> None:
    results = outcome(Spec())
    plan = dataclasses.replace(results.plan, layers="compiled")
    facts = time_section(dataclasses.replace(results, plan=plan), ()).facts
    (mode,) = (fact for fact in facts if fact.name == "execution mode")
    assert mode.note == "weights as loaded, layers compiled for training"


@pytest.mark.parametrize(
    ("weights", "note"),
    [
        ("as loaded", "train.speed=plain"),
        ("dequantized", "train.speed=plain; 4-bit weights also kept dequantised"),
    ],
)
def test_plain_mode_shows_its_reason(
    weights: Literal["dequantized", "as loaded"], note: str
) -> None:
    plan = Plan("plain", "train.speed=plain", weights, 8, (), None, (), 0.0)
    results = dataclasses.replace(outcome(Spec()), plan=plan)
    shown = {fact.name: (fact.value, fact.note) for fact in time_section(results, ()).facts}
    assert shown["execution mode"] == ("plain loop", note)
    assert "warm-up" not in shown


def test_stages_and_the_time_outside_them_add_up_to_the_job() -> None:
    results = outcome(Spec(resumed=True))
    rows = time_section(results, ()).stages.rows
    assert abs(sum(row.bar for row in rows if row.bar is not None) - 1) < 1e-6


def test_a_stage_whose_time_a_set_clock_spoiled_was_not_measured() -> None:
    results = outcome(Spec())
    start = next(stage for stage in results.stages if stage.stage == "start")
    spoiled = dataclasses.replace(
        start,
        duration_s=None,
        timed_parts=(PartTime("start, from its launch on", "other", None, None, None),),
    )
    stages = tuple(spoiled if stage is start else stage for stage in results.stages)
    rows = time_section(dataclasses.replace(results, stages=stages), ()).stages.rows
    shown = {row.cells[0]: row.cells[1:3] for row in rows}
    assert shown["waiting for the model's process to start"] == ("not measured", "")
    assert shown["start, from its launch on"] == ("not measured", "")
    assert "outside the stages" not in shown  # it would have that time in it


def test_an_attempt_that_recorded_no_end_makes_the_total_a_lower_bound() -> None:
    name, note = facts_of(Spec(resumed=True))["whole job"]
    assert name.startswith("at least ")
    assert note.endswith("attempt 1 ended without a record, and counts up to the last one")


def test_a_complete_record_makes_no_lower_bound() -> None:
    value, note = facts_of(Spec())["whole job"]
    assert (value.startswith("at least"), note) == (False, "one attempt")


def facts_of(spec: Spec) -> dict[str, tuple[str, str]]:
    return {fact.name: (fact.value, fact.note) for fact in time_section(outcome(spec), ()).facts}


def test_a_run_whose_times_are_lost_was_not_timed() -> None:
    results = dataclasses.replace(outcome(Spec()), total_s=0.0, attempts=0, stages=())
    facts = {fact.name: (fact.value, fact.note) for fact in time_section(results, ()).facts}
    assert facts["whole job"] == ("not measured", "no times were recorded, or none can be read")
    tiles = {tile.name: tile.value for tile in summary_section(results).tiles}
    assert tiles["time"] == "not measured"


def test_times_of_all_trainings_are_told_from_those_of_the_one_that_is_kept() -> None:
    section = time_section(several_trainings(), [])
    assert section.stages.caption == "Each stage, over all attempts and trainings"
    assert section.epochs.caption == "Each epoch of seed-43"
    assert "scoring, all trainings" in [column.name for column in section.epochs.columns]
    assert "trainings" not in time_section(outcome(Spec()), []).stages.caption


def test_a_model_that_was_not_quantised_was_only_loaded() -> None:
    results = outcome(Spec())
    plain = dataclasses.replace(
        results, parameters=dataclasses.replace(results.parameters, quantized_modules=0)
    )
    names = [
        {row.cells[0] for row in time_section(one, ()).stages.rows} for one in (results, plain)
    ]
    assert "model loaded and quantised" in names[0]
    assert "model loaded" in names[1]
