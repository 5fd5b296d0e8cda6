"""Moves a training within its run's folder when the run gets several trainings, or one again.

A single training lies in the run's own folder, each of several in one of its own (see
`nlijob.trials`). So what is done is not done again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from nlijob.files import remove
from nlijob.records.job import FileStamp, Inputs, Marker
from nlijob.rundir import (
    MARKERS,
    TRIALS,
    RunDir,
    epoch_marker,
    is_of_trial,
    step_marker,
    write_record,
)
from nlijob.trials import Trial


def arrange(run: RunDir, trials: Iterable[Trial], inputs: Mapping[str, Inputs]) -> None:
    """Move each training that is in the other place and was made from the present inputs.

    A move that is interrupted goes on at the next call: the markers in the old place go last.
    """
    for trial in trials:
        source = run.view("" if trial.folder else f"{TRIALS}{trial.name}")
        if _is_made_from(source, inputs[trial.key("train")]):
            _move(source, run.of_trial(trial))


def training_markers(view: RunDir) -> list[Marker]:
    """The markers of a training that say what it was made from, whether or not it is complete."""
    names = ["train", epoch_marker(1), *(step_marker(*step) for step in view.marked_steps())]
    found = (view.read_marker(name) for name in names)
    return [marker for marker in found if marker is not None]


def _is_made_from(view: RunDir, inputs: Inputs) -> bool:
    return any(marker.fingerprint == inputs.fingerprint for marker in training_markers(view))


def _move(source: RunDir, target: RunDir) -> None:
    names = [name for name in source.marked() if is_of_trial(name)]
    markers = {name: marker for name in names if (marker := source.read_marker(name))}
    for name, marker in markers.items():
        write_record(target.marker(name), _renamed(marker, source, target))
    listed = {source.root / file for marker in markers.values() for file in marker.files}
    others = [file for file in sorted(listed) if source.train_folder not in file.parents]
    for old in (source.train_folder, *others):
        new = _place(old, source, target)
        if old.exists():
            remove(new)
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)
    for name in names:
        source.unmark(name)
    if source.trial:
        remove(source.root / source.trial)
        remove(source.root / MARKERS / source.trial)


def _place(path: Path, source: RunDir, target: RunDir) -> Path:
    """Where a file of one view lies in the other."""
    return target.root / target.trial / path.relative_to(source.root / source.trial)


def _renamed(marker: Marker, source: RunDir, target: RunDir) -> Marker:
    """The marker with the names that its files have in the new place."""

    def renamed(files: Mapping[str, FileStamp]) -> dict[str, FileStamp]:
        return {
            target.name(_place(source.root / name, source, target)): stamp
            for name, stamp in files.items()
        }

    return dataclasses.replace(
        marker, files=renamed(marker.files), to_continue=renamed(marker.to_continue)
    )
