"""Gates on the outcome, and whether they are met."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nlijob.analysis.gates import check_gates
from nlijob.analysis.statistics import wilson_interval
from nlijob.config import ReportConfig
from nlijob.records.outcome import Gates
from tests.synthetic import Spec
from tests.unit.analysis.made import trainings
from tests.unit.report.view.outcomes import outcome


def judged(asked: ReportConfig) -> Gates:
    results = outcome(Spec())
    return check_gates(asked, results.tuned, results.gain, results.gain_interval)


def test_a_figure_equal_to_its_gate_passes() -> None:
    results = outcome(Spec())
    assert judged(ReportConfig(min_accuracy=results.tuned.accuracy, min_gain=results.gain)).passed


def test_every_missed_gate_is_reported_with_its_figures() -> None:
    gates = judged(ReportConfig(min_accuracy=1.0, min_gain=0.9))
    assert not gates.passed
    accuracy, gain = gates.failures
    assert (accuracy.code, gain.code) == ("min-accuracy", "min-gain")
    tuned = outcome(Spec()).tuned
    assert f"({tuned.correct} of {tuned.rows}) is below the 100 % asked for" in accuracy.text
    assert "is below the 90 points asked for" in gain.text


@pytest.mark.parametrize("share", [0.64996, 0.649999])
def test_a_missed_gate_is_never_shown_as_met(share: float) -> None:
    results = outcome(Spec())
    tuned = replace(results.tuned, accuracy=share)
    (failure,) = check_gates(
        ReportConfig(min_accuracy=0.65), tuned, results.gain, results.gain_interval
    ).failures
    assert "accuracy 64.99" in failure.text
    (failure,) = check_gates(
        ReportConfig(min_gain=0.65), tuned, share, results.gain_interval
    ).failures
    assert "a gain of +64.99" in failure.text


def test_a_gate_on_the_lower_bound_uses_the_interval_by_premise() -> None:
    asked = ReportConfig(min_accuracy=0.99, gate_on="lower")
    results = outcome(Spec(report=asked))
    (failure,) = results.gates.failures
    tuned = results.tuned
    assert failure.figures["judged"] == tuned.accuracy_interval.low
    assert tuned.accuracy_interval.low < wilson_interval(tuned.correct, tuned.rows).low


def test_without_gates_the_outcome_passes() -> None:
    assert judged(ReportConfig()).passed


@pytest.mark.parametrize("gate", ["min_accuracy", "min_gain"])
def test_a_gate_on_the_lower_bound_needs_more_than_the_figure_itself(gate: str) -> None:
    results = outcome(Spec())
    figure = results.tuned.accuracy if gate == "min_accuracy" else results.gain
    bounds = results.tuned.accuracy_interval if gate == "min_accuracy" else results.gain_interval
    by_value = judged(ReportConfig(**{gate: figure}))  # type: ignore[arg-type]
    by_bound = judged(ReportConfig(**{gate: figure}, gate_on="lower"))  # type: ignore[arg-type]
    assert by_value.passed
    assert not by_bound.passed
    assert "may be as low as" in by_bound.failures[0].text
    asked = ReportConfig(**{gate: bounds.low}, gate_on="lower")  # type: ignore[arg-type]
    assert judged(asked).passed


# ---------------------------------------------------------------- several trainings

TRIALS = trainings((0.7, 0.8, 0.75))


def judged_together(asked: ReportConfig) -> Gates:
    results = outcome(Spec())
    return check_gates(asked, results.tuned, results.gain, results.gain_interval, TRIALS)


def test_gates_judge_the_mean_of_several_trainings_and_not_the_kept_one() -> None:
    accuracy, gain = TRIALS.accuracy.mean, TRIALS.gain.mean
    assert judged_together(ReportConfig(min_accuracy=accuracy, min_gain=gain)).passed
    asked = ReportConfig(min_accuracy=accuracy + 1e-3, min_gain=gain + 1e-3)
    failures = judged_together(asked).failures
    assert [one.figures["judged"] for one in failures] == [accuracy, gain]
    assert [one.figures["trainings"] for one in failures] == [3, 3]
    assert "mean test accuracy" in failures[0].text
    assert "over 3 trainings is below" in failures[0].text
    assert "a mean gain of" in failures[1].text


def test_gates_on_the_lower_bound_judge_that_of_the_mean() -> None:
    bounds = TRIALS.accuracy.interval.low, TRIALS.gain.interval.low
    met = ReportConfig(min_accuracy=bounds[0], min_gain=bounds[1], gate_on="lower")
    assert judged_together(met).passed
    asked = replace(met, min_accuracy=bounds[0] + 1e-3, min_gain=bounds[1] + 1e-3)
    failures = judged_together(asked).failures
    assert [one.figures["judged"] for one in failures] == list(bounds)
    assert all("may be as low as" in one.text for one in failures)
