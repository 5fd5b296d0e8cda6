"""The figures of a run that are sent to trackers, read from its records as they grow."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nlijob import records
from nlijob.config import JobConfig
from nlijob.records.job import EpochResult, ScoreResult, SplitScore, TrainStep
from nlijob.records.outcome import Results
from nlijob.rundir import RunDir
from nlijob.trials import Trial, trials_of

Values = dict[str, float]
"""Name of a figure, such as "train/loss" -> its value."""


class Point(NamedTuple):
    """Figures that belong to an optimizer step."""

    step: int
    values: Values


class Series:
    """The figures of one training."""

    def __init__(self, run: RunDir, trial: Trial) -> None:
        self.name = trial.name
        self._view = run.of_trial(trial)
        self._epochs = trial.config.train.epochs
        self._prefix = f"{trial.name}/" if trial.folder else ""
        """Where there are several trainings, their figures have names of their own."""
        self._log = _Growing(self._view.train_log)

    def steps(self, after: int) -> Iterator[Point]:
        """The optimizer steps after this one that were logged since the last call."""
        for line in self._log.lines():
            step = records.from_json(TrainStep, json.loads(line))
            if step.step > after:
                after = step.step
                yield Point(step.step, self._named(_step_values(step)))

    def epochs(self, after: int) -> Iterator[tuple[int, Point]]:
        """The epochs after this one that are complete, with their numbers, in order."""
        for epoch in range(after + 1, self._epochs + 1):
            try:
                result = records.read(EpochResult, self._view.epoch_result(epoch))
            except (OSError, ValueError):  # it is not there yet, or is being written
                return
            yield epoch, Point(epoch * result.steps, self._named(_epoch_values(result)))

    def _named(self, values: Values) -> Values:
        return {self._prefix + name: value for name, value in values.items()}


def series_of(run: RunDir, config: JobConfig) -> list[Series]:
    """The trainings of a run."""
    return [Series(run, trial) for trial in trials_of(config)]


def outcome_of(run: RunDir) -> Values:
    """The figures of a finished run, by the names that results.json has."""
    results = records.read(Results, run.results)
    trials = results.trials
    values: dict[str, float | None] = {
        "outcome/base_accuracy": results.base.accuracy,
        "outcome/tuned_accuracy": results.tuned.accuracy,
        "outcome/gain": results.gain,
        "outcome/gain_low": results.gain_interval.low,
        "outcome/gain_high": results.gain_interval.high,
        "outcome/mcnemar_p": results.mcnemar_p,
        "outcome/base_macro_f1": results.base.macro_f1,
        "outcome/tuned_macro_f1": results.tuned.macro_f1,
        "outcome/mean_tuned_accuracy": trials.accuracy.mean if trials else None,
        "outcome/mean_gain": trials.gain.mean if trials else None,
        "outcome/test_rows": results.tuned.rows,
        "outcome/selected_epoch": results.selection.epoch,
        "outcome/total_s": results.total_s,
        "outcome/training_examples_per_s": results.training_examples_per_s,
        "outcome/gates_passed": float(results.gates.passed),
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def baseline_of(run: RunDir) -> Values:
    """The base model's scores; empty where they are not there yet."""
    with contextlib.suppress(OSError, ValueError):
        scores = records.read(ScoreResult, run.baseline_result).scores
        return {
            name: value
            for split, score in scores.items()
            for name, value in _score_values(f"base/{split}", score).items()
        }
    return {}


def _step_values(step: TrainStep) -> Values:
    values = {
        "train/loss": step.loss,
        "train/learning_rate": step.learning_rate,
        "train/examples_per_s": step.examples / step.duration_s if step.duration_s else None,
        "train/grad_norm": step.grad_norm,
        "train/epoch": float(step.epoch),
    }
    return {name: value for name, value in values.items() if value is not None}


def _epoch_values(result: EpochResult) -> Values:
    values = {"train/epoch_loss": result.train_loss}
    values |= _score_values("validation", result.validation)
    return values | (_score_values("test", result.test) if result.test else {})


def _score_values(prefix: str, score: SplitScore) -> Values:
    return {f"{prefix}/accuracy": score.accuracy, f"{prefix}/loss": score.loss}


class _Growing:
    """Reads the whole lines that were added to a file since the last call.

    A resumed training writes its log anew, up to its checkpoint: then all lines count as added.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read_bytes = 0

    def lines(self) -> list[str]:
        try:
            with self._file.open("rb") as handle:
                if handle.seek(0, 2) < self._read_bytes:
                    self._read_bytes = 0
                handle.seek(self._read_bytes)
                added = handle.read()
        except OSError:
            return []
        whole = added[: added.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        return whole.decode("utf-8", "replace").splitlines()
