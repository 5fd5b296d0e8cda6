"""Whether a stage has to be done again, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nlijob import records
from nlijob.analysis.selection import best_of
from nlijob.analysis.wording import listed
from nlijob.belonging import differences, shortened
from nlijob.records.job import FORMAT_VERSION, FileStamp, Inputs, Marker, Selection
from nlijob.rundir import RunDir, epoch_marker, is_of_adapter

SHOWN_FILES = 3


def is_complete(run: RunDir, key: str, inputs: Mapping[str, Inputs]) -> bool:
    """Whether a stage is complete with its present inputs, and all that is still read of it whole.

    Of training, that is every epoch's figures and, as long as they are needed, the weights of the
    selected epoch. `key` names the stage, and `inputs` has those of all stages by such names (see
    `nlijob.fingerprints`).
    """
    view, stage = run.at(key)
    if not view.is_complete(stage, inputs[key].fingerprint):
        return False
    return stage != "train" or not any(_faults_of_epochs(view, inputs))


def why_again(run: RunDir, key: str, inputs: Mapping[str, Inputs]) -> str:
    """Why a stage that was complete is done again, in words.

    "" where it is complete, was never done, or only follows a stage that is done again.
    """
    view, stage = run.at(key)
    marker = view.read_marker(stage)
    if marker is None:
        return "its marker cannot be read" if view.marker(stage).exists() else ""
    if marker.format_version != FORMAT_VERSION or marker.inputs is None:
        return f"it was done by another version (record format {marker.format_version})"
    if differing := list(differences(marker.inputs, inputs[key], ("in the folder", "now"))):
        return shortened(differing)
    if marker.fingerprint != inputs[key].fingerprint:
        return ""
    faults = _changed(view, marker.files)
    return "; ".join([*faults, *_faults_of_epochs(view, inputs)] if stage == "train" else faults)


def _faults_of_epochs(run: RunDir, inputs: Mapping[str, Inputs]) -> Iterator[str]:
    """What is missing or damaged of a training's epochs, in words."""
    of_training = inputs[_key(run.trial, "train")]
    selected = _selected(run)
    needs_weights = _needs_weights(run, inputs)
    for epoch in range(1, of_training.settings["train.epochs"] + 1):
        marker = run.read_marker(epoch_marker(epoch))
        if marker is None or marker.fingerprint != of_training.fingerprint:
            yield f"epoch {epoch} is not complete"
            continue
        figures = _figures(marker)
        with_weights = needs_weights and (selected is None or selected.epoch == epoch)
        if with_weights and len(figures) == len(marker.files):
            yield f"the weights of epoch {epoch} were not kept"
        yield from _changed(run, marker.files if with_weights else figures)


def _needs_weights(run: RunDir, inputs: Mapping[str, Inputs]) -> bool:
    """Whether weights of a training are still read: to score them, or to keep them."""
    evaluated = run.is_complete("evaluate", inputs[_key(run.trial, "evaluate")].fingerprint)
    kept = run.is_complete("explain", inputs["explain"].fingerprint)
    return not evaluated or (not kept and _may_be_kept(run, inputs))


def _may_be_kept(run: RunDir, inputs: Mapping[str, Inputs]) -> bool:
    """Whether no other training of the run is known to be better."""
    folders = [key.rpartition("/")[0] for key in inputs if key.rpartition("/")[2] == "select"]
    found = {folder: _selected(run.view(folder)) for folder in folders}
    known = {folder: selection for folder, selection in found.items() if selection}
    return run.trial not in known or best_of(known) == run.trial


def _key(folder: str, stage: str) -> str:
    return f"{folder}/{stage}" if folder else stage


def _figures(marker: Marker) -> dict[str, FileStamp]:
    """The files of an epoch but for the weights."""
    return {n: stamp for n, stamp in marker.files.items() if not is_of_adapter(n)}


def _selected(run: RunDir) -> Selection | None:
    """The selection of a training's epoch; None where it is not known."""
    try:
        return records.read(Selection, run.selection)
    except (OSError, ValueError):
        return None


def _changed(run: RunDir, files: Mapping[str, FileStamp]) -> list[str]:
    changed = run.changed(files)
    if not changed:
        return []
    verb = "is missing or has" if len(changed) == 1 else "are missing or have"
    more = len(changed) - SHOWN_FILES
    shown = changed[:SHOWN_FILES] + ([f"{more} more"] if more > 0 else [])
    return [f"{listed(shown)} {verb} changed"]
