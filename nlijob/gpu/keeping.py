"""Deletes the adapters of trainings that were not chosen, as they take most of a run's space."""

from __future__ import annotations

from dataclasses import replace

from nlijob import records
from nlijob.config import JobConfig
from nlijob.files import remove
from nlijob.records.job import Choice
from nlijob.rundir import RunDir, epoch_marker, is_of_adapter, write_record
from nlijob.trials import trials_of


def keep_best_weights(run: RunDir, config: JobConfig) -> None:
    """Delete the weights of all trainings but the chosen one, unless all are to be kept."""
    trials = trials_of(config)
    if len(trials) == 1 or config.train.keep == "all":
        return
    best = records.read(Choice, run.choice).trial
    for trial in trials:
        if trial.name != best:
            _delete_weights(run.of_trial(trial), config.train.epochs)


def _delete_weights(run: RunDir, epochs: int) -> None:
    """Delete a training's weights; its epochs stay complete, with their figures."""
    for epoch in range(1, epochs + 1):
        marker = run.read_marker(epoch_marker(epoch))
        weights = [name for name in marker.files if is_of_adapter(name)] if marker else []
        if marker is None or not weights:
            continue
        figures = {name: stamp for name, stamp in marker.files.items() if name not in weights}
        write_record(run.marker(epoch_marker(epoch)), replace(marker, files=figures))
        for name in weights:
            remove(run.root / name)
