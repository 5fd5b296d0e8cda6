"""Which training of a finished run is kept: its adapter is the run's, the report about it."""

from __future__ import annotations

from nlijob import records
from nlijob.config import JobConfig
from nlijob.records.job import Choice
from nlijob.rundir import RunDir
from nlijob.trials import Trial, trials_of


def kept_trial(run: RunDir, config: JobConfig) -> Trial:
    """The training whose adapter is kept.

    Raises OSError where the choice is not recorded yet, ValueError where its record is damaged.
    """
    trials = trials_of(config)
    if len(trials) == 1:
        return trials[0]
    name = records.read(Choice, run.choice).trial
    found = [trial for trial in trials if trial.name == name]
    if not found:
        raise ValueError(f"{run.name(run.choice)} names {name!r}, which the run does not have")
    return found[0]


def kept_view(run: RunDir, config: JobConfig) -> RunDir:
    """The run as the training sees it whose adapter is kept; raises as `kept_trial`."""
    return run.of_trial(kept_trial(run, config))
