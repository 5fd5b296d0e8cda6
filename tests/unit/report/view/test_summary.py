"""The first screen claims no more than the figures support."""

from __future__ import annotations

from dataclasses import replace

from nlijob.analysis.wording import decimal
from nlijob.config import ReportConfig
from nlijob.records.outcome import Cost
from nlijob.report.view.summary import summary_section
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome


def test_a_significant_gain_is_called_a_gain() -> None:
    summary = summary_section(outcome(Spec()))
    assert summary.verdict.startswith("Tuning raised test accuracy from")
    assert summary.tone == "better"


def test_a_change_that_may_be_chance_is_not_called_a_gain() -> None:
    summary = summary_section(replace(outcome(Spec()), mcnemar_p=0.2))
    assert "not statistically significant" in summary.verdict
    assert summary.tone == "unclear"


def test_a_significant_loss_is_called_a_loss() -> None:
    summary = summary_section(replace(outcome(Spec()), gain=-0.1, mcnemar_p=0.001))
    assert "lowered" in summary.verdict
    assert summary.tone == "worse"


def test_a_gain_from_always_answering_one_label_is_not_called_a_gain() -> None:
    results = outcome(Spec())
    answers = [
        replace(c, predicted=98 if c.name == "neutral" else 0) for c in results.tuned.classes
    ]
    always = replace(results.tuned, classes=tuple(answers))
    summary = summary_section(replace(results, tuned=always))
    assert "the tuned model answers “neutral” for 98 of 98 rows" in summary.verdict
    assert summary.tone == "unclear"


def test_no_change_is_called_no_change() -> None:
    summary = summary_section(replace(outcome(Spec()), gain=0.0, mcnemar_p=1.0))
    assert "the same before and after" in summary.verdict


def test_the_demo_is_marked() -> None:
    assert summary_section(outcome(Spec(demo=True))).demo
    assert not summary_section(outcome(Spec())).demo


def test_a_run_on_the_cpu_shows_memory_of_the_job_and_no_energy() -> None:
    tiles = {tile.name: tile for tile in summary_section(outcome(Spec(gpu=False))).tiles}
    assert "GPU energy" not in tiles
    assert tiles["peak memory"].note == "RAM of the job; no GPU"


def test_the_first_screen_shows_the_cost_if_a_price_was_given() -> None:
    results = outcome(Spec())
    assert "cost" not in {tile.name for tile in summary_section(results).tiles}
    cost = Cost(0.0421, "USD", 3.2, "the price given for the machine")
    tiles = {tile.name: tile for tile in summary_section(replace(results, cost=cost)).tiles}
    assert tiles["cost"].value == "USD 0.042"
    assert tiles["cost"].note.startswith("at USD 3.20 an hour")


def test_energy_is_not_measured_unless_every_gpu_was_measured() -> None:
    results = outcome(Spec())
    one = results.resources.gpus[0]
    two = replace(results.resources, gpus=(one, replace(one, energy_j=None)))
    tiles = {tile.name: tile for tile in summary_section(replace(results, resources=two)).tiles}
    assert tiles["GPU energy"].value == "not measured"


def test_a_time_in_seconds_is_not_repeated() -> None:
    long = replace(outcome(Spec()), total_s=90.0)
    short = replace(long, total_s=24.6)
    times = [
        next(tile for tile in summary_section(results).tiles if tile.name == "time")
        for results in (long, short)
    ]
    assert times[0].value == "1 min 30 s"
    assert times[0].note.startswith("90\N{NO-BREAK SPACE}s; training ")
    assert times[1].value == "24.6 s"
    assert times[1].note.startswith("training ")


def test_time_and_cost_of_a_run_with_a_killed_attempt_are_lower_bounds() -> None:
    cost = Cost(0.0421, "USD", 3.2, "the price given for the machine")
    results = replace(outcome(Spec(resumed=True)), cost=cost)
    tiles = {tile.name: tile.value for tile in summary_section(results).tiles}
    assert tiles["time"].startswith("at least ")
    assert tiles["cost"] == "at least USD 0.042"


def test_emissions_are_shown_if_an_intensity_was_given() -> None:
    asked = ReportConfig(carbon_g_per_kwh=380)
    results = outcome(Spec(report=asked))
    assert results.emissions
    tile = next(t for t in summary_section(results).tiles if t.name == "CO₂ emissions")
    assert tile.value == f"{decimal(results.emissions.co2eq_g)} g"
    assert tile.note == "CO₂ equivalents of the energy of the GPU alone, at 380 g per kWh"
    names = {tile.name for tile in summary_section(outcome(Spec())).tiles}
    assert "CO₂ emissions" not in names


def test_emissions_of_a_cpu_are_not_measured() -> None:
    results = outcome(Spec(gpu=False, report=ReportConfig(carbon_g_per_kwh=380)))
    tile = next(t for t in summary_section(results).tiles if t.name == "CO₂ emissions")
    assert (tile.value, tile.note) == ("not measured", "the energy of a CPU was not measured")
