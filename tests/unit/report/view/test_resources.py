"""Resource use; figures that were not measured say so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nlijob.analysis.resources import total_energy_j
from nlijob.config import ReportConfig
from nlijob.report.view.resources import resources_section
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome


def test_a_run_on_the_cpu_says_so() -> None:
    resources = resources_section(outcome(Spec(gpu=False)))
    assert resources.no_gpu == "No GPU: this job ran on the CPU."


@pytest.mark.parametrize(
    "name", ["mean load", "highest load", "memory used (from the driver)", "mean power", "energy"]
)
def test_figures_not_measured_never_read_as_zero(name: str) -> None:
    ((_, facts),) = resources_section(outcome(Spec(samples=False))).gpus
    assert {fact.name: fact.value for fact in facts}[name] == "not measured"


def test_energy_of_all_gpus_is_their_sum() -> None:
    results = outcome(Spec())
    one = replace(results.resources.gpus[0], energy_j=3600.0)
    two = replace(results.resources, gpus=(one, replace(one, energy_j=1800.0)))
    assert total_energy_j(two.gpus) == 5400.0


def test_with_several_attempts_each_gpu_lists_its_attempts() -> None:
    results = outcome(Spec())
    first = replace(results.resources.gpus[0], attempts=(1, 3))
    last = replace(first, name="another GPU", uuid="ef56", attempts=(2,))
    both = replace(results.resources, gpus=(last, first))
    gpus = resources_section(replace(results, attempts=3, resources=both)).gpus
    assert [
        (name, {fact.name: fact.value for fact in facts}["in attempts"]) for name, facts in gpus
    ] == [
        ("another GPU", "2"),
        (first.name, "1, 3"),
    ]
    ((_, facts),) = resources_section(replace(results, attempts=1)).gpus
    assert "in attempts" not in {fact.name for fact in facts}


def test_energy_says_which_part_of_the_time_it_covers() -> None:
    results = outcome(Spec())
    gpu = replace(results.resources.gpus[0], energy_s=52.0, attempts_s=1054.2)
    resources = replace(results.resources, gpus=(gpu,))
    ((_, facts),) = resources_section(replace(results, resources=resources)).gpus
    notes = {fact.name: fact.note for fact in facts}
    assert notes["energy"] == "measured over 52.0 of 1,054.2 s"


def test_what_could_not_be_read_is_told_with_its_reason() -> None:
    results = outcome(Spec())
    told = ("free disk space: gone", "GPU load from nvidia-smi: \x1b[31mno")
    note = resources_section(
        replace(results, resources=replace(results.resources, unread=told))
    ).note
    assert note.endswith(
        "Not read, at least at times: free disk space: gone; GPU load from nvidia-smi: ␛[31mno."
    )
    assert "Not read" not in resources_section(results).note


def test_power_and_energy_are_said_to_be_the_cards() -> None:
    note = resources_section(outcome(Spec())).note
    assert "load, memory, power and energy for the whole card" in note


def test_samples_are_said_to_be_as_far_apart_as_they_are() -> None:
    results = outcome(Spec())
    config = replace(results.run.config, report=ReportConfig(sample_interval_s=60.0))
    changed_since = replace(results, run=replace(results.run, config=config))
    assert "samples, about one every 2.0 s." in resources_section(changed_since).note
