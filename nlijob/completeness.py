"""Whether a stage has to be done again, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nlijob import records
from nlijob.analysis.wording import listed
from nlijob.belonging import differences, shortened
from nlijob.records.job import FORMAT_VERSION, FileStamp, Inputs, Marker, Selection
from nlijob.rundir import RunDir, epoch_marker, is_of_adapter

SHOWN_FILES = 3


def is_complete(run: RunDir, stage: str, inputs: Mapping[str, Inputs]) -> bool:
    """Whether a stage is complete with its present inputs, and all that is still read of it whole.

    Of training, that is every epoch's figures and, until the evaluation is complete, the weights of
    the selected epoch.
    """
    if not run.is_complete(stage, inputs[stage].fingerprint):
        return False
    return stage != "train" or not any(_faults_of_epochs(run, inputs))


def why_again(run: RunDir, stage: str, inputs: Mapping[str, Inputs]) -> str:
    """Why a stage that was complete is done again, in words.

    "" where it is complete, was never done, or only follows a stage that is done again.
    """
    marker = run.read_marker(stage)
    if marker is None:
        return "its marker cannot be read" if run.marker(stage).exists() else ""
    if marker.format_version != FORMAT_VERSION or marker.inputs is None:
        return f"it was done by another version (record format {marker.format_version})"
    if differing := list(differences(marker.inputs, inputs[stage], ("in the folder", "now"))):
        return shortened(differing)
    if marker.fingerprint != inputs[stage].fingerprint:
        return ""
    faults = _changed(run, marker.files) + ([*_faults_of_epochs(run, inputs)] * (stage == "train"))
    return "; ".join(faults)


def _faults_of_epochs(run: RunDir, inputs: Mapping[str, Inputs]) -> Iterator[str]:
    """What is missing or damaged of the epochs, in words."""
    evaluated = run.is_complete("evaluate", inputs["evaluate"].fingerprint)
    selected = None if evaluated else _selected(run)
    for epoch in range(1, inputs["train"].settings["train.epochs"] + 1):
        marker = run.read_marker(epoch_marker(epoch))
        if marker is None or marker.fingerprint != inputs["train"].fingerprint:
            yield f"epoch {epoch} is not complete"
        else:
            has_weights = not evaluated and selected in (None, epoch)
            yield from _changed(run, marker.files if has_weights else _figures(marker))


def _figures(marker: Marker) -> dict[str, FileStamp]:
    """The files of an epoch but for the weights."""
    return {n: stamp for n, stamp in marker.files.items() if not is_of_adapter(n)}


def _selected(run: RunDir) -> int | None:
    """The selected epoch; None where it is not known."""
    try:
        return records.read(Selection, run.selection).epoch
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
