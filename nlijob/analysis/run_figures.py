"""Reads figures.json, by which lists of runs know a run without reading all of it."""

from __future__ import annotations

import hashlib

from nlijob.records.figures import RUN_FIGURES_VERSION, RunFigures
from nlijob.records.job import Marker
from nlijob.records.serialization import from_json, parse, read
from nlijob.rundir import MARKERS, RunDir

STAGE = "report"


def made_from(run: RunDir) -> str:
    """SHA-256 of config.json and of all markers but the report's. Raises OSError.

    While it stays the same, nothing in the folder can contradict the report that was not there when
    it was written.
    """
    folder = run.root / MARKERS
    own = run.marker(STAGE)
    digest = hashlib.sha256()
    for file in (run.config, *sorted(folder.rglob("*.json"))):
        if file != own:
            content = file.read_bytes()
            digest.update(f"{run.name(file)} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def read_run_figures(run: RunDir) -> RunFigures | None:
    """The figures in a finished run's figures.json.

    None where there is no such file, as in runs of earlier versions, and where something in the
    folder has changed since. Then results.json and the markers tell more (see `read_outcome`).
    """
    try:
        marker = read(Marker, run.marker(STAGE))
        own, whole = (marker.files[run.name(path)] for path in (run.figures, run.results))
        content = run.figures.read_bytes()
        is_whole = hashlib.sha256(content).hexdigest() == own.sha256
        if not is_whole or run.results.stat().st_size != whole.size_bytes:
            return None
        value = parse(content)
        if value["version"] != RUN_FIGURES_VERSION or value["made_from"] != made_from(run):
            return None
        return from_json(RunFigures, value)
    except (OSError, ValueError, KeyError, TypeError):
        return None
