"""The report's section on time and execution mode."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest

from nlijob.records.job import Plan
from nlijob.report.view.time import time_section
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome

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
