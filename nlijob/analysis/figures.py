"""The main figures of a run, for comparison with other runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nlijob.analysis.resources import total_energy_j
from nlijob.config import JobConfig
from nlijob.records.intervals import Interval, PairedDifference
from nlijob.records.outcome import Results, TransferResult
from nlijob.records.trials import Expected


@dataclass(frozen=True)
class SetFigures:
    """Accuracies on a further test set."""

    name: str
    rows: int
    rows_sha256: str
    """Hash of the rows that were taken of the set."""
    base_accuracy: float
    tuned_accuracy: float
    """Of the training whose adapter is kept."""
    change: PairedDifference
    adjusted_p: float


@dataclass(frozen=True)
class Figures:
    """Main figures of a run; None for what was not measured."""

    run_id: str
    recipe: str
    created_at: str
    nlijob_version: str
    model: str
    dataset: str
    devices: tuple[str, ...]
    """Names of the GPUs, or of the processor."""
    has_gpu: bool
    train_rows: int
    test_rows: int
    test_rows_sha256: str
    base_accuracy: float
    base_accuracy_interval: Interval
    tuned_accuracy: float
    tuned_accuracy_interval: Interval
    gain: float
    gain_interval: Interval
    mcnemar_p: float
    base_balanced_accuracy: float
    tuned_balanced_accuracy: float
    base_macro_f1: float
    tuned_macro_f1: float
    both_right: int
    corrected: int
    still_wrong: int
    newly_broken: int
    selected_epoch: int
    epochs: int
    attempts: int
    total_s: float
    training_s: float | None
    training_examples_per_s: float
    cost: float | None
    currency: str
    energy_j: float | None
    peak_gpu_bytes: int | None
    """Peak of the memory allocated by torch."""
    peak_ram_bytes: int | None
    trainable_parameters: int
    gates: bool | None
    """Whether all gates are met; None without gates."""
    is_least: bool = False
    """Whether time and cost are lower bounds, because an attempt did not record its end."""
    trainings: int = 1
    """With several, accuracy, gain and all other figures of the tuned model are of the one whose
    adapter is kept, but for the next two."""
    accuracy_over_trainings: Expected | None = None
    """None with one training."""
    gain_over_trainings: Expected | None = None
    elsewhere: tuple[SetFigures, ...] = ()
    """Each further test set, in the order of the recipe."""

    @property
    def expected_accuracy(self) -> float:
        """Accuracy to expect of the recipe: the mean over the trainings where there are several."""
        over = self.accuracy_over_trainings
        return self.tuned_accuracy if over is None else over.mean

    @property
    def expected_interval(self) -> Interval:
        """The interval of `expected_accuracy`."""
        over = self.accuracy_over_trainings
        return self.tuned_accuracy_interval if over is None else over.interval


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
