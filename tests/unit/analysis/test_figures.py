"""The main figures match the outcome."""

from __future__ import annotations

from dataclasses import replace

from nlijob.analysis.figures import figures, settings
from nlijob.config import ReportConfig
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome


def test_figures_match_the_outcome() -> None:
    results = outcome(Spec(resumed=True))
    found = figures(results)
    assert found.tuned_accuracy == results.tuned.accuracy
    assert found.base_accuracy_interval == results.base.accuracy_interval
    assert found.attempts == 2
    assert [found.training_s] == [s.duration_s for s in results.stages if s.stage == "train"]
    assert found.both_right + found.corrected + found.still_wrong + found.newly_broken == 98
    assert found.devices == ("NVIDIA H200",)


def test_what_was_not_measured_or_asked_is_none() -> None:
    found = figures(outcome(Spec(gpu=False)))
    assert not found.has_gpu
    assert (found.cost, found.energy_j, found.peak_gpu_bytes, found.gates) == (None,) * 4


def test_a_gate_is_reported_only_where_one_is_configured() -> None:
    assert figures(outcome(Spec(report=ReportConfig(min_accuracy=0.1)))).gates is True
    assert figures(outcome(Spec(report=ReportConfig(min_gain=0.99)))).gates is False


def test_energy_is_unknown_where_only_one_of_two_gpus_measured_it() -> None:
    results = outcome(Spec())
    one = results.resources.gpus[0]
    two = replace(results.resources, gpus=(one, replace(one, energy_j=None)))
    assert figures(replace(results, resources=two)).energy_j is None


def test_settings_have_dotted_keys() -> None:
    flat = settings(outcome(Spec()).run.config)
    assert flat["lora.r"] == 32
    assert flat["description"] == "a made-up run"
