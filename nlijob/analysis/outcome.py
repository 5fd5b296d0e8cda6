"""The whole outcome of a run, measured once from its records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from nlijob.analysis.cases import build_cases
from nlijob.analysis.cost import job_cost
from nlijob.analysis.metrics import measure
from nlijob.analysis.resources import resource_use
from nlijob.analysis.statistics import mcnemar_p, paired_difference_interval
from nlijob.analysis.times import attempt_numbers, stage_times, total_seconds
from nlijob.analysis.warnings import comparison_warnings, data_warnings, training_warnings
from nlijob.analysis.wording import count, percent, points
from nlijob.config import ReportConfig
from nlijob.records import (
    Environment,
    EpochResult,
    Example,
    Gates,
    Generation,
    HardwareSample,
    Manifest,
    Memory,
    Metrics,
    Prediction,
    PromptRecord,
    Results,
    RunRecord,
    ScoreResult,
    Selection,
    Timing,
    TrainResult,
    read,
    read_lines,
)
from nlijob.rundir import RunDir

T = TypeVar("T")


def build_results(run: RunDir) -> Results:
    """Read every record of a finished run and measure what the report tells.

    Raises OSError where a record is missing and ValueError where one is damaged or where records
    contradict each other.
    """
    record = read(RunRecord, run.config)
    config = record.config
    environment = read(Environment, run.environment)
    manifest = read(Manifest, run.manifest)
    baseline = read(ScoreResult, run.baseline_result)
    evaluation = read(ScoreResult, run.evaluate_result)
    training = read(TrainResult, run.train_result)
    selection = read(Selection, run.selection)
    timings = _lines(Timing, run.timings)

    base_rows = _test_rows(run.baseline_predictions)
    tuned_rows = _test_rows(run.evaluate_predictions)
    base = measure(base_rows, manifest.label_names)
    tuned = measure(tuned_rows, manifest.label_names)
    cases = build_cases(
        base_rows,
        tuned_rows,
        _lines(Example, run.subset("test")),
        _lines(Generation, run.generations),
        manifest.label_names,
        config.eval.cases,
    )
    gain = (tuned.correct - base.correct) / tuned.rows
    p = mcnemar_p(cases.corrected, cases.newly_broken)
    total_s = total_seconds(timings)

    return Results(
        run=record,
        environment=environment,
        manifest=manifest,
        prompt=read(PromptRecord, run.prompt),
        parameters=training.parameters,
        base=base,
        tuned=tuned,
        gain=gain,
        gain_interval=paired_difference_interval(cases.corrected, cases.newly_broken, tuned.rows),
        mcnemar_p=p,
        base_validation=baseline.scores.get("validation"),
        epochs=training.epochs,
        selection=selection,
        cases=cases,
        total_s=total_s,
        attempts=len(attempt_numbers(timings)),
        stages=stage_times(timings),
        training_examples_per_s=_training_speed(training.epochs),
        resources=resource_use(
            environment,
            _lines(HardwareSample, run.hardware),
            _memories(baseline, training.epochs, evaluation),
        ),
        cost=job_cost(config.report, environment, total_s),
        gates=check_gates(config.report, tuned, gain),
        warnings=(
            *comparison_warnings(base, tuned, gain, p),
            *training_warnings(training.epochs, selection),
            *data_warnings(manifest),
        ),
    )


def check_gates(asked: ReportConfig, tuned: Metrics, gain: float) -> Gates:
    """Whether the outcome reaches what was asked for, with a sentence for each that it misses."""
    failures = []
    if asked.min_accuracy is not None and tuned.accuracy < asked.min_accuracy:
        failures.append(
            f"test accuracy {percent(tuned.accuracy, 2)} ({count(tuned.correct)} of "
            f"{count(tuned.rows)}) is below the {100 * asked.min_accuracy:g} % asked for"
        )
    if asked.min_gain is not None and gain < asked.min_gain:
        failures.append(
            f"a gain of {points(gain)} is below the {100 * asked.min_gain:g} points asked for"
        )
    return Gates(passed=not failures, failures=tuple(failures))


def _test_rows(path: Path) -> list[Prediction]:
    return [row for row in read_lines(Prediction, path) if row.split == "test"]


def _lines(cls: type[T], path: Path) -> list[T]:
    """The records of a JSON Lines file that a run may lack (no free output, no sampler)."""
    return list(read_lines(cls, path)) if path.exists() else []


def _training_speed(epochs: Sequence[EpochResult]) -> float:
    """Training rows a second of optimizer steps, over all epochs."""
    return sum(epoch.examples for epoch in epochs) / sum(epoch.duration_s for epoch in epochs)


def _memories(
    baseline: ScoreResult, epochs: Iterable[EpochResult], evaluation: ScoreResult
) -> list[Memory]:
    return [baseline.memory, *(epoch.memory for epoch in epochs), evaluation.memory]
