"""The charts of a run, and their time axis."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nlijob.analysis.outcome import build_results
from nlijob.records.job import GpuSample, HardwareSample, TrainStep
from nlijob.records.outcome import GpuUse
from nlijob.records.serialization import read_lines
from nlijob.report import charts
from nlijob.report.chart_drawing import Plot
from nlijob.report.plots import MOST_POINTS, RUNNING_MEAN, Clock, gpu_lines_of, step_plots
from nlijob.report.sections import Outcome, draw_plots
from tests.synthetic import Spec, build_run


def sample(attempt: int, time_s: float, stage: str = "train") -> HardwareSample:
    return HardwareSample(attempt, time_s, stage, 0.5, 1, 1, ())


def names(root: Path, spec: Spec) -> set[str]:
    run = build_run(root, spec)
    steps = list(read_lines(TrainStep, run.train_log))
    samples = list(read_lines(HardwareSample, run.hardware)) if run.hardware.exists() else []
    return set(draw_plots(Outcome(build_results(run), steps, samples)))


def test_a_gpu_run_has_charts_of_its_gpu(tmp_path: Path) -> None:
    assert {"gpu-load", "gpu-memory", "gpu-power", "ram"} <= names(tmp_path, Spec())


@pytest.mark.parametrize(
    ("gpus", "labels"),
    [(2, ["GPU 0", "GPU 1"]), (5, ["highest of 5", "mean", "lowest"])],
)
def test_many_gpus_are_drawn_by_their_highest_mean_and_lowest(gpus: int, labels: list[str]) -> None:
    uses = [
        GpuUse(f"GPU {n}", str(n), None, 1, None, None, None, None, None, None, None, (1,))
        for n in range(gpus)
    ]
    of = [GpuSample(str(n), n / 10, None, None, None, None) for n in range(gpus)]
    samples = [replace(sample(1, second), gpus=tuple(of)) for second in (0, 1)]
    lines = gpu_lines_of(uses, Clock.of(samples), lambda gpu: gpu.load)
    assert [line.label for line in lines] == labels
    last = gpus / 10 - 0.1
    expected = [0.0, 0.1] if gpus == 2 else [last, last / 2, 0.0]
    assert [line.values[0] for line in lines] == pytest.approx(expected)


def test_a_cpu_run_has_no_gpu_charts(tmp_path: Path) -> None:
    drawn = names(tmp_path, Spec(gpu=False))
    assert {"cpu-load", "ram"} <= drawn
    assert not {name for name in drawn if name.startswith("gpu")}


def test_a_run_without_samples_has_no_chart_over_time(tmp_path: Path) -> None:
    drawn = names(tmp_path, Spec(samples=False))
    of_results = {"accuracy", "reliability", "slices", "forgetting", "epochs", "loss"}
    assert drawn == of_results | {"steps"}


def test_the_jobs_time_leaves_out_the_pause_between_attempts() -> None:
    clock = Clock.of([sample(1, 100), sample(1, 110), sample(2, 9000), sample(2, 9005)])
    assert clock.times == (0, 10, 10, 15)


def test_the_jobs_time_is_that_of_the_clock_that_nobody_sets() -> None:
    moments = [(1, 5000.0, 50), (1, 1400.0, 52), (1, 9000.0, 55), (2, 10.0, 3), (2, 5.0, 4)]
    samples = [replace(sample(attempt, wall), monotonic_s=m) for attempt, wall, m in moments]
    assert Clock.of(samples).times == (0, 2, 5, 5, 6)


def test_a_clock_that_was_set_back_never_turns_the_time_of_an_older_run_back() -> None:
    clock = Clock.of([sample(1, 100), sample(1, 102), sample(1, 50), sample(1, 52)])
    assert clock.times == (0, 2, 2, 4)


def test_figures_that_were_not_measured_leave_a_gap() -> None:
    clock = Clock.of([sample(1, 0), replace(sample(1, 1), cpu_load=None), sample(1, 2)])
    assert clock.line("CPU", lambda one: one.cpu_load, "#000000").values == [0.5, None, 0.5, None]


def test_lines_break_between_attempts() -> None:
    clock = Clock.of([sample(1, 100), sample(1, 110), sample(2, 9000)])
    line = clock.line("CPU", lambda one: one.cpu_load, "#000000")
    assert line.values == [0.5, 0.5, None, 0.5, None]


def test_long_jobs_are_thinned_to_means() -> None:
    clock = Clock.of([sample(1, float(second)) for second in range(10 * MOST_POINTS)])
    line = clock.line("CPU", lambda one: one.time_s, "#000000")
    assert len(line.values) == MOST_POINTS + 1
    assert line.values[0] == pytest.approx(4.5)


def test_a_stage_lasts_until_the_next_begins() -> None:
    clock = Clock.of([sample(1, 0, "load"), sample(1, 5, "train"), sample(1, 9, "train")])
    spans = [(span.label, span.start, span.end) for span in clock.spans()]
    assert spans == [("load", 0, 5), ("train", 5, 9)]


def test_of_a_long_training_some_steps_are_drawn_with_the_mean_of_all_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Any] = []

    def note(*values: Any) -> Plot:
        drawn.extend(values)
        return loss_by_step(*values)

    loss_by_step = charts.loss_by_step
    monkeypatch.setattr(charts, "loss_by_step", note)
    steps = [TrainStep(1, n + 1, (n * 7919 % 101) / 50, 1.0, 1e-4, 8, 0.01) for n in range(4_500)]
    step_plots(steps)
    *_, numbers, losses, smoothed, _ = drawn
    assert numbers == list(range(1, 4_501, 4))
    assert len(losses) == len(smoothed) <= 4 * MOST_POINTS
    last = [step.loss for step in steps[: numbers[-1]]][-RUNNING_MEAN:]
    assert smoothed[-1] == sum(last) / RUNNING_MEAN
    assert smoothed[0] == losses[0]
