"""Deletes the adapters of trainings that are not the best, as they take most of a run's space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nlijob import records
from nlijob.analysis.selection import best_of
from nlijob.files import remove
from nlijob.records.job import Selection
from nlijob.rundir import RunDir, epoch_marker, is_of_adapter, write_record
from nlijob.trials import Trial


def keep_best_weights(run: RunDir, trials: Sequence[Trial]) -> None:
    """Delete the weights of all but the best of these trainings, which are scored."""
    views = {trial.name: run.of_trial(trial) for trial in trials}
    best = best_of({name: records.read(Selection, one.selection) for name, one in views.items()})
    for trial in trials:
        if trial.name != best:
            _delete_weights(views[trial.name], trial.config.train.epochs)


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
