"""The main figures of a run, for comparison with other runs."""

from __future__ import annotations

import dataclasses
from typing import Any

from nlijob.analysis.resources import total_energy_j
from nlijob.config import JobConfig
from nlijob.records.figures import RUN_FIGURES_VERSION, Figures, RunFigures, SetFigures
from nlijob.records.outcome import Results, TransferResult


def figures(results: Results) -> Figures:
    """The main figures of an outcome."""
    run, manifest, cases = results.run, results.manifest, results.cases
    base, tuned, environment = results.base, results.tuned, results.environment
    asked = run.config.report
    gated = asked.min_accuracy is not None or asked.min_gain is not None
    return Figures(
        run_id=run.run_id,
        recipe=run.recipe,
        created_at=run.created_at,
        nlijob_version=run.nlijob_version,
        model=run.config.model.name,
        dataset=manifest.dataset,
        devices=tuple(gpu.name for gpu in environment.gpus) or (environment.cpu_name,),
        has_gpu=bool(environment.gpus),
        train_rows=manifest.splits["train"].rows if "train" in manifest.splits else 0,
        test_rows=tuned.rows,
        test_rows_sha256=manifest.splits["test"].rows_sha256,
        base_accuracy=base.accuracy,
        base_accuracy_interval=base.accuracy_interval,
        tuned_accuracy=tuned.accuracy,
        tuned_accuracy_interval=tuned.accuracy_interval,
        gain=results.gain,
        gain_interval=results.gain_interval,
        mcnemar_p=results.mcnemar_p,
        base_balanced_accuracy=base.balanced_accuracy,
        tuned_balanced_accuracy=tuned.balanced_accuracy,
        base_macro_f1=base.macro_f1,
        tuned_macro_f1=tuned.macro_f1,
        both_right=cases.both_right,
        corrected=cases.corrected,
        still_wrong=cases.still_wrong,
        newly_broken=cases.newly_broken,
        selected_epoch=results.selection.epoch,
        epochs=len(results.epochs),
        attempts=results.attempts,
        total_s=results.total_s,
        training_s=next((one.duration_s for one in results.stages if one.stage == "train"), None),
        training_examples_per_s=results.training_examples_per_s,
        cost=results.cost.amount if results.cost else None,
        currency=results.cost.currency if results.cost else "",
        energy_j=total_energy_j(results.resources.gpus),
        peak_gpu_bytes=results.resources.peak_allocated_bytes,
        peak_ram_bytes=results.resources.max_ram_used_bytes,
        trainable_parameters=results.parameters.trainable,
        gates=results.gates.passed if gated else None,
        is_least=bool(results.cut_short),
        trainings=len(results.trials.trials) if results.trials else 1,
        accuracy_over_trainings=results.trials.accuracy if results.trials else None,
        gain_over_trainings=results.trials.gain if results.trials else None,
        elsewhere=tuple(map(_set_figures, results.transfer)),
    )


def run_figures(results: Results) -> RunFigures:
    """What lists of runs need of an outcome."""
    test = results.manifest.splits["test"]
    train = results.manifest.splits.get("train")
    return RunFigures(
        version=RUN_FIGURES_VERSION,
        config=results.run.config,
        figures=figures(results),
        train_rows_sha256=train.rows_sha256 if train else "",
        packages=dict(results.environment.packages),
        rows=tuple(test.indices),
        wrong=wrong_rows(results),
        premises=tuple(results.test_premises.numbers) if results.test_premises else (),
    )


def wrong_rows(results: Results) -> tuple[int, ...]:
    """Source row numbers of the test rows that the tuned model labels incorrectly, sorted."""
    cases = results.cases
    return tuple(sorted(row.index for row in (*cases.rows_still_wrong, *cases.rows_newly_broken)))


def _set_figures(one: TransferResult) -> SetFigures:
    return SetFigures(
        name=one.manifest.name,
        rows=one.rows,
        rows_sha256=one.manifest.rows.rows_sha256,
        base_accuracy=one.base.accuracy,
        tuned_accuracy=one.tuned.accuracy,
        change=one.change,
        adjusted_p=one.adjusted_p,
    )


def settings(config: JobConfig) -> dict[str, Any]:
    """Every value of a configuration by its dotted key."""
    flat: dict[str, Any] = {}
    for name, value in dataclasses.asdict(config).items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            flat[name] = value
    return flat
