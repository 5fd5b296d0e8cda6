"""Where the time went, and how the job computed."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest

from nlijob.records import Plan
from nlijob.report.view.time import time_section
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome


def facts(spec: Spec) -> dict[str, tuple[str, str]]:
    return {fact.name: (fact.value, fact.note) for fact in time_section(outcome(spec), ()).facts}


def test_the_fast_way_shows_how_it_was_checked_and_what_was_refused() -> None:
    shown = facts(Spec())
    assert shown["way of computing"] == ("CUDA graphs on packed rows", "weights as loaded")
    assert shown["checked against the plain loop"][0] == "0.21 %"
    assert shown["warm-up"][0] == "6.4 s"
    (refused,) = time_section(outcome(Spec()), ()).refused
    assert "4.1 GiB are free" in refused


def test_on_a_cpu_there_is_no_word_of_graphs() -> None:
    shown = facts(Spec(gpu=False))
    assert shown["way of computing"] == ("packed rows", "4-bit values kept dequantised too")
    assert shown["checked against the plain loop"][0] == "< 0.01 %"
    assert time_section(outcome(Spec(gpu=False)), ()).refused == ()


def test_that_layers_were_computed_again_is_said() -> None:
    for gpu in (True, False):
        results = outcome(Spec(gpu=gpu))
        plan = dataclasses.replace(results.plan, activations="recomputed")
        facts = time_section(dataclasses.replace(results, plan=plan), ()).facts
        (way,) = (fact for fact in facts if fact.name == "way of computing")
        assert way.note.endswith(", layers computed again for their gradient")


def test_that_layers_were_compiled_is_said() -> None:
    results = outcome(Spec())
    plan = dataclasses.replace(results.plan, layers="compiled")
    facts = time_section(dataclasses.replace(results, plan=plan), ()).facts
    (way,) = (fact for fact in facts if fact.name == "way of computing")
    assert way.note == "weights as loaded, layers compiled for training"


@pytest.mark.parametrize(
    ("weights", "note"),
    [
        ("as loaded", "train.speed asks for it"),
        ("dequantized", "train.speed asks for it; 4-bit values kept dequantised too"),
    ],
)
def test_the_plain_way_says_why(weights: Literal["dequantized", "as loaded"], note: str) -> None:
    plan = Plan("plain", "train.speed asks for it", weights, 8, (), None, (), 0.0)
    results = dataclasses.replace(outcome(Spec()), plan=plan)
    shown = {fact.name: (fact.value, fact.note) for fact in time_section(results, ()).facts}
    assert shown["way of computing"] == ("plain loop", note)
    assert "warm-up" not in shown


def test_stages_and_what_lies_between_them_add_up_to_the_job() -> None:
    results = outcome(Spec(resumed=True))
    rows = time_section(results, ()).stages.rows
    assert abs(sum(row.bar for row in rows if row.bar is not None) - 1) < 1e-6
