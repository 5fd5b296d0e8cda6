"""Computes the whole outcome of a run from its records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nlijob.analysis.agreement import check_rows, check_selection
from nlijob.analysis.annotators import measure_annotators
from nlijob.analysis.bootstrap import bootstrap_intervals
from nlijob.analysis.cases import build_cases, pairs
from nlijob.analysis.clustered import effective_rows, paired_difference
from nlijob.analysis.controls import build_controls, control_warnings
from nlijob.analysis.cost import job_cost
from nlijob.analysis.emissions import job_emissions
from nlijob.analysis.epoch_comparison import Validation
from nlijob.analysis.forgetting import forgetting_warnings, read_forgetting
from nlijob.analysis.gates import check_gates
from nlijob.analysis.label_bias import label_bias
from nlijob.analysis.leakage import leakage_warnings
from nlijob.analysis.logs import read_logs
from nlijob.analysis.metrics import measure
from nlijob.analysis.premises import Premises, premise_groups, premises_of
from nlijob.analysis.read_trials import read_trials
from nlijob.analysis.resources import GpusInUse, resource_use
from nlijob.analysis.search import measure_search, read_candidates
from nlijob.analysis.severity import by_severity
from nlijob.analysis.slices import measure_slices
from nlijob.analysis.statistics import narrower
from nlijob.analysis.tasks import read_tasks
from nlijob.analysis.times import attempt_times, outside_stages_s, stage_times
from nlijob.analysis.transfer import measure_transfer, transfer_warnings
from nlijob.analysis.trial_warnings import trial_warnings
from nlijob.analysis.trials import measure_trials, right_in
from nlijob.analysis.warnings import (
    comparison_warnings,
    data_warnings,
    length_warnings,
    premise_warnings,
    slice_warnings,
    training_warnings,
)
from nlijob.kept import kept_trial
from nlijob.records.intervals import PairedDifference
from nlijob.records.job import (
    Environment,
    EpochResult,
    Example,
    Generation,
    Manifest,
    Occlusion,
    Plan,
    Prediction,
    PromptRecord,
    RunRecord,
    ScoreResult,
    Selection,
    SplitManifest,
    TrainResult,
    of_split,
)
from nlijob.records.outcome import Narrowing, Results
from nlijob.records.serialization import read, read_all, read_lines
from nlijob.rundir import RunDir
from nlijob.tracking.states import states_of


def build_results(run: RunDir) -> Results:
    """Everything that the report shows, computed from the records of a finished run.

    Raises OSError where a record is missing, ValueError where one is damaged or where records
    contradict each other.
    """
    record = read(RunRecord, run.config)
    config = record.config
    best = kept_trial(run, config)
    kept = run.of_trial(best)
    environment = read(Environment, run.environment)
    manifest = read(Manifest, run.manifest)
    baseline = read(ScoreResult, run.baseline_result)
    evaluation = read(ScoreResult, kept.evaluate_result)
    training = read(TrainResult, kept.train_result)
    selection = read(Selection, kept.selection)
    logs = read_logs(run)

    baseline_rows = read_all(Prediction, run.baseline_predictions)
    base_rows = of_split(baseline_rows, "test")
    tuned_rows = of_split(read_lines(Prediction, kept.evaluate_predictions), "test")
    prompt = read(PromptRecord, run.prompt)
    examples = prompt.kept("test", read_lines(Example, run.subset("test")))
    check_selection(training, selection, evaluation)
    check_rows(base_rows, examples, baseline)
    check_rows(tuned_rows, examples, evaluation)
    groups, premises = premise_groups(examples), premises_of(examples)
    base = measure(base_rows, manifest.label_names, premises)
    tuned = measure(tuned_rows, manifest.label_names, premises)
    trial_rows = read_trials(run, config, examples)
    trials = measure_trials(base_rows, trial_rows, best.name, premises) if trial_rows else None
    cases = build_cases(
        base_rows,
        tuned_rows,
        examples,
        read_all(Generation, run.generations),
        read_all(Occlusion, run.occlusion),
        manifest.label_names,
        config.eval.cases,
        right_in(trial_rows) if trial_rows else None,
    )
    change = _change(base_rows, tuned_rows, premises)
    slices = measure_slices(
        base_rows, tuned_rows, examples, manifest.label_names, config.report.slice_columns
    )
    transfer = measure_transfer(run, config, change)
    validation = _read_validation(kept, training.epochs, baseline_rows)
    comparisons = validation.compared_with(selection.epoch)
    loss_change = validation.loss_change()
    times = attempt_times(logs.timings, logs.samples)
    seconds = {attempt: time.seconds for attempt, time in times.items()}
    in_use = GpusInUse(environment, logs.machines)
    controls = build_controls(
        tuned_rows,
        read_all(Prediction, run.few_shot_predictions),
        read_all(Prediction, run.blank_premise_predictions),
        manifest.label_names,
        premises,
    )

    forgetting = read_forgetting(run, config)
    memory = [
        baseline.memory,
        *(epoch.memory for epoch in training.epochs),
        *(epoch.memory for trial in trial_rows for epoch in trial.epochs),
        *(epoch.memory for one in read_candidates(run, config) for epoch in one.epochs),
        evaluation.memory,
    ]
    resources = resource_use(in_use, logs.samples, memory, seconds)

    return Results(
        run=record,
        environment=environment,
        manifest=manifest,
        prompt=prompt,
        plan=read(Plan, kept.plan),
        parameters=training.parameters,
        base=base,
        tuned=tuned,
        gain=change.difference,
        gain_interval=change.interval,
        mcnemar_p=change.mcnemar_p,
        bootstrap=bootstrap_intervals(base_rows, tuned_rows, len(manifest.label_names), premises),
        on_all_rows=_on_all_rows(manifest.splits["test"], base_rows, tuned_rows, premises),
        label_bias=label_bias(base, tuned),
        slices=slices,
        controls=controls,
        base_validation=baseline.scores.get("validation"),
        epochs=training.epochs,
        selection=selection,
        epoch_comparisons=comparisons,
        cases=cases,
        total_s=sum(seconds.values()),
        attempts=len(seconds),
        stages=stage_times(logs.timings, times),
        training_examples_per_s=_training_speed(training.epochs),
        resources=resources,
        cost=job_cost(config.report, in_use, seconds),
        gates=check_gates(config.report, tuned, change.difference, change.interval, trials),
        warnings=by_severity(
            (
                *leakage_warnings(manifest),
                *length_warnings(prompt, manifest),
                *comparison_warnings(base, tuned, change, slices, trials),
                *trial_warnings(trials, manifest.label_names),
                *transfer_warnings(transfer, change),
                *premise_warnings(groups),
                *slice_warnings(slices),
                *control_warnings(controls, config.eval.few_shot),
                *forgetting_warnings(forgetting),
                *training_warnings(training.epochs, selection, comparisons, loss_change),
                *data_warnings(manifest),
                *logs.warnings(),
            )
        ),
        test_premises=groups,
        validation_intervals=validation.intervals(),
        validation_loss_change=loss_change,
        annotators=measure_annotators(base_rows, tuned_rows, examples),
        transfer=transfer,
        forgetting=forgetting,
        tasks=read_tasks(run, config),
        cut_short=tuple(attempt for attempt, time in times.items() if time.is_least),
        trials=trials,
        search=measure_search(run, config),
        outside_stages_s=outside_stages_s(logs.timings, times),
        tracking=states_of(run, config.report.track),
        emissions=job_emissions(config.report, resources.total_energy_j),
    )


def _change(
    base: Sequence[Prediction], tuned: Sequence[Prediction], premises: Premises
) -> PairedDifference:
    """The tuned model compared with the base model on the test rows."""
    matched = pairs(base, tuned)
    return paired_difference(
        [pair.tuned.is_right for pair in matched],
        [pair.base.is_right for pair in matched],
        [premises[pair.index] for pair in matched],
    )


def _read_validation(
    run: RunDir, epochs: Iterable[EpochResult], baseline: Iterable[Prediction]
) -> Validation:
    """The predictions of every epoch and of the base model for the validation rows."""
    files = {epoch.epoch: run.epoch_predictions(epoch.epoch) for epoch in epochs}
    return Validation(
        base=of_split(baseline, "validation"),
        epochs={
            epoch: of_split(read_lines(Prediction, path), "validation")
            for epoch, path in files.items()
        },
        premises=premises_of(read_lines(Example, run.subset("validation"))),
    )


def _on_all_rows(
    test: SplitManifest,
    base: Sequence[Prediction],
    tuned: Sequence[Prediction],
    premises: Premises,
) -> Narrowing | None:
    """Expected intervals on the whole split, if the same share of its rows is labelled."""
    if test.selected >= test.source_rows:
        return None
    matched = pairs(base, tuned)
    numbers = [premises[pair.index] for pair in matched]
    right = [pair.tuned.is_right for pair in matched]
    changes = [pair.tuned.is_right - pair.base.is_right for pair in matched]
    return narrower(
        sum(right),
        sum(change > 0 for change in changes),
        sum(change < 0 for change in changes),
        len(matched),
        round(test.source_rows * len(matched) / test.selected),
        (effective_rows(right, numbers, (0, 1)), effective_rows(changes, numbers, (-1, 1))),
    )


def _training_speed(epochs: Sequence[EpochResult]) -> float:
    """Training rows per second of optimizer steps, over all epochs."""
    return sum(epoch.examples for epoch in epochs) / sum(epoch.duration_s for epoch in epochs)
