"""What the page says of several GPUs: which they were, how they trained, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nlijob.records.job import GpuInfo
from nlijob.records.outcome import Results
from nlijob.report.view.configuration import configuration_section
from nlijob.report.view.machine import machine_tile, overlap_note, sharing_facts
from nlijob.report.view.parts import Fact
from nlijob.report.view.resources import resources_section
from nlijob.report.view.summary import summary_section
from nlijob.report.view.time import time_section
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome, side_by_side


def planned(results: Results, **plan: Any) -> Results:
    return replace(results, plan=replace(results.plan, **plan))


def test_a_single_gpu_has_no_tile_and_no_fact_of_its_own() -> None:
    one = outcome(Spec())
    assert machine_tile(one) == sharing_facts(one) == ()
    assert overlap_note(one) == ""


def test_the_first_screen_names_several_gpus() -> None:
    tiles = summary_section(side_by_side()).tiles
    assert Fact("machine", "2 × NVIDIA H200", "2 trainings side by side") in tiles
    notes = {tile.name: tile.note for tile in tiles}
    assert "at USD 6.40 an hour (the recipe's table of GPUs, for 2 GPUs)" in notes["cost"]
    assert "sum of 2 whole cards, from their own meters" in notes["GPU energy"]


@pytest.mark.parametrize(
    ("share", "tile", "fact"),
    [
        ("trials", "2 trainings side by side", "2, each with a training of its own"),
        ("steps", "all share each training step", "2, which share each step of a training"),
        ("none", "one trains, all score", "2, of which one trains and all score"),
    ],
)
def test_how_they_trained_is_said_with_the_reason(share: str, tile: str, fact: str) -> None:
    results = planned(
        side_by_side(), share=share, share_reason="faster", processes_reason="many rows"
    )
    assert machine_tile(results)[0].note == tile
    assert sharing_facts(results) == (Fact("GPUs", fact, "faster; many rows"),)


def test_a_gpu_that_was_left_alone_where_there_are_more_says_why() -> None:
    results = planned(outcome(Spec()), processes_reason="a second GPU would not be worth its start")
    (fact,) = sharing_facts(results)
    assert fact == Fact("GPUs", "1", "a second GPU would not be worth its start")
    assert fact in time_section(results, ()).facts


def test_several_hosts_are_counted() -> None:
    results = side_by_side()
    first, second = results.environment.gpus
    gpus = (replace(first, host="a"), replace(second, host="b"))
    results = replace(results, environment=replace(results.environment, gpus=gpus))
    assert machine_tile(results)[0].note == "2 trainings side by side; on 2 hosts"


def test_processes_on_a_cpu_are_no_gpus() -> None:
    results = planned(outcome(Spec(gpu=False)), processes=3, share="steps")
    assert machine_tile(results) == (
        Fact("machine", "3 processes", "all share each training step"),
    )
    assert sharing_facts(results)[0].name == "processes"


def test_each_gpu_has_a_row_of_its_own() -> None:
    view = resources_section(side_by_side())
    assert view.gpus == ()
    first, second = view.table.rows
    assert (first.cells[0], second.cells[0]) == ("GPU 0: NVIDIA H200", "GPU 1: NVIDIA H200")
    assert first.cells[2] != second.cells[2]
    assert view.balance.startswith("In training, GPU 0 was the busiest, with a mean load of 9")
    assert view.balance.endswith(" points less.")
    assert view.facts[0].name == "energy of all GPUs"
    assert [text.partition(":")[0] for text in view.identities] == ["GPU 0", "GPU 1"]


def test_figures_of_a_gpu_that_was_not_sampled_never_read_as_zero() -> None:
    results = side_by_side()
    far = GpuInfo("NVIDIA H200", "ef56", "9.0", 2**30, None, host="second")
    near = replace(results.resources.gpus[0], host="first")
    unknown = replace(
        near,
        uuid=far.uuid,
        host=far.host,
        mean_load=None,
        mean_training_load=None,
        mean_scoring_load=None,
        max_memory_used_bytes=None,
        mean_power_w=None,
        energy_j=None,
        max_temperature_c=None,
    )
    use = replace(results.resources, gpus=(near, unknown), total_energy_j=None, imbalance=None)
    view = resources_section(replace(results, resources=use))
    assert view.table.rows[1].cells == ("GPU 1 on second: NVIDIA H200", *["not measured"] * 7)
    assert view.facts[0].value == "not measured"
    assert "GPUs of other hosts than the first are not sampled." in view.note


def test_time_side_by_side_is_named_and_explained() -> None:
    results = side_by_side()
    view = time_section(results, ())
    rows = {row.cells[0]: row.cells for row in view.stages.rows}
    assert "training, up to 2 side by side" in rows
    assert "Up to 2 trainings were at work side by side." in view.note
    (speed,) = (fact for fact in view.facts if fact.name == "training speed")
    assert speed.note.startswith("optimizer steps of one training only; ")
    train = next(stage for stage in results.stages if stage.stage == "train")
    assert train.duration_s is not None
    assert train.duration_s < results.total_s


def test_gpus_of_one_kind_are_counted_in_the_environment() -> None:
    facts = configuration_section(side_by_side()).environment
    assert Fact("GPU", "2 × NVIDIA H200", "compute capability 9.0") in facts
