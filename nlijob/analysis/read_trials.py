"""Reads the records of a run's trainings, where it has several."""

from __future__ import annotations

from collections.abc import Sequence

from nlijob.analysis.agreement import check_rows, check_selection
from nlijob.analysis.selection import best_of
from nlijob.analysis.trials import TrialRows
from nlijob.config import JobConfig
from nlijob.kept import kept_trial
from nlijob.records.job import Example, Prediction, ScoreResult, Selection, TrainResult, of_split
from nlijob.records.serialization import read, read_lines
from nlijob.rundir import RunDir
from nlijob.trials import Trial, trials_of


def read_trials(
    run: RunDir, config: JobConfig, examples: Sequence[Example]
) -> tuple[TrialRows, ...]:
    """The trainings of a finished run, in the order of the configuration; empty if it has one.

    `examples` are the test rows. Raises OSError where a record is missing, ValueError where one is
    damaged or where records contradict each other.
    """
    trials = trials_of(config)
    if len(trials) == 1:
        return ()
    found = tuple(_read(run.of_trial(trial), trial, examples) for trial in trials)
    best, kept = best_of({one.name: one.selection for one in found}), kept_trial(run, config).name
    if best != kept:
        raise ValueError(
            f"by its validation scores {best} is the training to keep, and {kept} was kept"
        )
    return found


def _read(run: RunDir, trial: Trial, examples: Sequence[Example]) -> TrialRows:
    training = read(TrainResult, run.train_result)
    selection = read(Selection, run.selection)
    evaluation = read(ScoreResult, run.evaluate_result)
    predictions = of_split(read_lines(Prediction, run.evaluate_predictions), "test")
    check_selection(training, selection, evaluation)
    check_rows(predictions, examples, evaluation)
    return TrialRows(
        name=trial.name,
        seed=trial.config.train.seed,
        epochs=training.epochs,
        selection=selection,
        predictions=predictions,
        loss=evaluation.scores["test"].loss,
    )
