"""Generates a complete run folder with several trainings, around a synthetic run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nlijob.analysis.selection import RULE_OF_TRIALS, best_of
from nlijob.config import with_seeds
from nlijob.fingerprints import inputs_of, settings_of, stage_inputs
from nlijob.records.job import (
    SPLITS,
    Choice,
    Environment,
    HardwareSample,
    Inputs,
    Plan,
    RunRecord,
    Selection,
    Timing,
)
from nlijob.records.outcome import Results
from nlijob.records.serialization import read, read_all
from nlijob.rundir import RunDir, epoch_marker, write_record, write_records
from nlijob.stages import STAGES, TRIAL_STAGES, WHOLE_JOB
from nlijob.trials import Trial, trials_of
from tests.synthetic import STAMPS, Spec, build_run


def build_several(root: Path, spec: Spec, seeds: Sequence[int]) -> RunDir:
    """Write every record of a run with a training for each seed; the report is missing.

    All trainings share the rows and the base model.
    """
    run = build_run(root, spec)
    record = read(RunRecord, run.config)
    train = replace(record.config.train, seeds=tuple(seeds))
    config = with_seeds(replace(record.config, train=train))
    write_record(run.config, replace(record, config=config))
    trials = trials_of(config)
    for trial in trials:
        seed = trial.config.train.seed
        alone = build_run(root / "alone" / trial.name, replace(spec, training_seed=seed))
        (run.root / trial.folder).mkdir(parents=True)
        for name in ("train", "selection.json", "evaluate"):
            (alone.root / name).rename(run.root / trial.folder / name)
    views = {trial.name: run.of_trial(trial) for trial in trials}
    chosen = {name: read(Selection, view.selection) for name, view in views.items()}
    best = best_of(chosen)
    write_record(
        run.choice,
        Choice(
            best, RULE_OF_TRIALS, chosen[best].epoch, chosen[best].validation_accuracy, len(trials)
        ),
    )
    _mark(run, trials)
    return run


def do_side_by_side(run: RunDir) -> None:
    """Have the trainings of a run been done side by side: each of its GPUs took the next one.

    Each took as long as the run's first one, and began half a second after its neighbour.
    """
    trials = trials_of(read(RunRecord, run.config).config)
    gpus = len(read(Environment, run.environment).gpus)
    timings = read_all(Timing, run.timings)
    first = [timing for timing in timings if timing.stage in TRIAL_STAGES]
    length_s = max(map(_end_s, first)) - min(_start_s(timing) for timing in first)
    after_s = [n // gpus * length_s + n % gpus / 2 for n in range(len(trials))]
    of_trials = [
        replace(timing, trial=trial.name, started_monotonic_s=_start_s(timing) + later_s)
        for trial, later_s in zip(trials, after_s, strict=True)
        for timing in first
    ]
    rest = [
        replace(timing, duration_s=timing.duration_s + after_s[-1])
        if timing.stage == WHOLE_JOB
        else timing
        for timing in timings
        if timing.stage not in TRIAL_STAGES
    ]
    write_records(run.timings, [*rest, *of_trials])
    _sample_on(run, after_s[-1])
    reason = f"{len(trials)} trainings to do; each process takes the next one"
    for trial in trials:
        plan = read(Plan, run.of_trial(trial).plan)
        plan = replace(plan, processes=gpus, share="trials", share_reason=reason)
        write_record(run.of_trial(trial).plan, plan)
    _mark(run, trials)


def _sample_on(run: RunDir, more_s: float) -> None:
    """Have the hardware been sampled for some time more, in which it trained as before."""
    samples = read_all(HardwareSample, run.hardware)
    training = [sample for sample in samples if sample.stage == "train"]
    last = samples[-1]
    added = [
        replace(
            training[n % len(training)],
            time_s=last.time_s + 2 * n,
            monotonic_s=(last.monotonic_s or 0.0) + 2 * n,
            gpus=tuple(
                replace(gpu, energy_j=(before.energy_j or 0.0) + 2 * n * (gpu.power_w or 0.0))
                for gpu, before in zip(training[0].gpus, last.gpus, strict=True)
            ),
        )
        for n in range(1, int(more_s / 2) + 1)
    ]
    write_records(run.hardware, [*samples, *added])


def _start_s(timing: Timing) -> float:
    return timing.started_monotonic_s or 0.0


def _end_s(timing: Timing) -> float:
    return _start_s(timing) + timing.duration_s


def finish_several(run: RunDir, results: Results) -> None:
    """Write results.json as the report stage does, without the page, and mark the stage."""
    write_record(run.results, results)
    explain = run.read_marker("explain")
    assert explain is not None
    (stage,) = (stage for stage in STAGES if stage.name == "report")
    settings = settings_of(results.run.config, stage)
    inputs = Inputs(settings, {"explain": explain.fingerprint}, "")
    run.mark_complete("report", inputs, [run.results])


def _mark(run: RunDir, trials: Sequence[Trial]) -> None:
    config = read(RunRecord, run.config).config
    inputs = stage_inputs(config, STAMPS)
    run.unmark("train")
    run.unmark("select")
    run.unmark("evaluate")
    for epoch in range(1, config.train.epochs + 1):
        run.unmark(epoch_marker(epoch))
    for trial in trials:
        view, own = run.of_trial(trial), inputs_of(inputs, trial)
        for epoch in range(1, config.train.epochs + 1):
            files = [file for file in view.epoch(epoch).iterdir() if file.is_file()]
            view.mark_complete(epoch_marker(epoch), own["train"], files)
        view.mark_complete("train", own["train"], [view.train_result, view.train_log, view.plan])
        view.mark_complete("select", own["select"], [view.selection])
        files = [view.evaluate_predictions, view.evaluate_result]
        view.mark_complete("evaluate", own["evaluate"], files)
    of_run = {
        "subset": [run.manifest, *map(run.subset, SPLITS)],
        "baseline": [run.baseline_predictions, run.baseline_result, run.prompt],
        "explain": [run.environment, run.choice],
    }
    for stage, outputs in of_run.items():
        run.mark_complete(stage, inputs[stage], outputs)
