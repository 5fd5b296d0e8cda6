"""Generates a complete run folder with several trainings, around a synthetic run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nlijob.analysis.selection import RULE_OF_TRIALS, best_of
from nlijob.config import with_seeds
from nlijob.fingerprints import inputs_of, settings_of, stage_inputs
from nlijob.records.job import SPLITS, Choice, Inputs, RunRecord, Selection
from nlijob.records.outcome import Results
from nlijob.records.serialization import read
from nlijob.rundir import RunDir, epoch_marker, write_record
from nlijob.stages import STAGES
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
