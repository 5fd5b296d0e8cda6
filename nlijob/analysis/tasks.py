"""Both models in the tasks of lm-evaluation-harness, paired by document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlijob.analysis.clustered import flipped_p, mean_difference_interval
from nlijob.analysis.forgetting import change_interval
from nlijob.analysis.statistics import holm
from nlijob.config import JobConfig
from nlijob.kept import kept_trial
from nlijob.records.forgetting import TaskChange, TaskScore, TaskTrial
from nlijob.records.intervals import Interval
from nlijob.records.serialization import read_all
from nlijob.rundir import RunDir
from nlijob.trials import trials_of

Key = tuple[str, str]
"""Task and metric."""


def read_tasks(run: RunDir, config: JobConfig) -> tuple[TaskChange, ...]:
    """Every task of a finished run by every metric; none where no tasks were asked for.

    Raises ValueError where records are damaged.
    """
    trials = trials_of(config)
    return compare_tasks(
        read_all(TaskScore, run.baseline_tasks),
        {trial.name: read_all(TaskScore, run.of_trial(trial).evaluate_tasks) for trial in trials},
        kept_trial(run, config).name,
    )


def compare_tasks(
    base: Sequence[TaskScore], tuned: Mapping[str, Sequence[TaskScore]], kept: str
) -> tuple[TaskChange, ...]:
    """The training `kept` beside the base model, by the tasks and metrics that all models have.

    `tuned`: name of each training -> its model's scores. p-values are Holm-adjusted over all rows
    of the result. Raises ValueError where models were scored on different documents.
    """
    after = {name: {(one.task, one.metric): one for one in of} for name, of in tuned.items()}
    common = [one for one in base if all((one.task, one.metric) in of for of in after.values())]
    changes = [
        _change(one, {name: of[one.task, one.metric] for name, of in after.items()}, kept)
        for one in common
    ]
    adjusted = holm([one.p for one in changes])
    return tuple(replace(one, adjusted_p=p) for one, p in zip(changes, adjusted, strict=True))


def _change(base: TaskScore, tuned: Mapping[str, TaskScore], kept: str) -> TaskChange:
    own = tuned[kept]
    differences = _differences(base, own)
    p = flipped_p(differences, range(len(differences)))
    trials = [
        TaskTrial(name, one.value, float(_differences(base, one).mean()))
        for name, one in tuned.items()
    ]
    return TaskChange(
        task=base.task,
        metric=base.metric,
        documents=len(base.documents),
        higher_is_better=base.higher_is_better,
        base=base.value,
        base_stderr=base.stderr,
        tuned=own.value,
        tuned_stderr=own.stderr,
        difference=float(differences.mean()),
        interval=_interval(base, own),
        p=p,
        adjusted_p=p,
        trials=tuple(trials) if len(trials) > 1 else (),
    )


def _interval(base: TaskScore, tuned: TaskScore) -> Interval | None:
    """95 % interval of the mean difference; None for fewer than two documents.

    That of two shares where all values are from 0 to 1, else Student's t.
    """
    differences = _differences(base, tuned)
    if all(0 <= value <= 1 for value in (*base.values, *tuned.values)):
        return mean_difference_interval(differences.tolist(), range(len(differences)))
    return change_interval(differences, np.ones(len(differences)))


def _differences(base: TaskScore, tuned: TaskScore) -> NDArray[Any]:
    """The tuned model's value minus the base model's for each document."""
    if base.documents != tuned.documents:
        raise ValueError(f"{base.task}: the models were scored on different documents")
    return np.asarray(np.array(tuned.values) - np.array(base.values))
