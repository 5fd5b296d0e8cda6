"""What processes on other hosts need of the run's folder, and what they add to it.

Those on the lead's host, and those that see its folder on shared storage, read and write there. The
others have a folder of their own, with the configuration and where their model lies; they get the
rows from the lead, and hand over what they have made.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from socket import gethostname

from nlijob import records
from nlijob.files import append, atomic_write
from nlijob.gpu.group import Group
from nlijob.records.job import Timing, WorkerTask
from nlijob.rundir import RunDir, append_to_log

TOKEN = "folder"


def is_elsewhere(run: RunDir, group: Group) -> bool:
    """Whether this process has another folder than the lead; all processes call this."""
    if not group.is_shared:
        return False
    file, token = run.worker_task.with_name(TOKEN), uuid.uuid4().hex
    if group.is_lead:
        file.write_text(token, encoding="utf-8")
    token = group.share(token)
    return not (file.exists() and file.read_text(encoding="utf-8") == token)


def send_rows(run: RunDir, group: Group, elsewhere: bool) -> None:
    """Give the rows to the processes that have other folders; all processes call this."""
    if not any(group.gather(elsewhere)):
        return
    files = group.share(_packed(run, run.row_files()) if group.is_lead else {})
    if elsewhere:
        _unpack(run, files)


def bring(run: RunDir, group: Group, elsewhere: bool, made: Iterable[Path]) -> None:
    """Add to the lead's folder what others have made in theirs; all processes call this.

    `made`: files and folders, the markers last.
    """
    places = group.gather((elsewhere, gethostname(), str(run.root)))
    if not any(there for there, *_ in places):
        return
    clocks = group.gather(time.monotonic())  # all have come here, so all read theirs at once
    reports: Reports = [], b""
    if elsewhere and places.index(places[group.rank]) == group.rank:  # the first in its folder
        reports = _reports(run, clocks[0] - clocks[group.rank])
    files = _packed(run, made) if elsewhere else {}
    for its_files, (timings, progress) in group.collect((files, reports)):
        _unpack(run, its_files)
        _add_timings(run, timings)
        append(run.progress, progress)


Reports = tuple[list[Timing], bytes]
"""Timings, and lines of progress."""


def _reports(run: RunDir, clock_ahead_s: float) -> Reports:
    """What the processes of a folder have reported; it is removed there.

    `clock_ahead_s`: by how much the monotonic clock of the lead's host is ahead.
    """
    timings = [
        timing
        if timing.started_monotonic_s is None
        else dataclasses.replace(
            timing, started_monotonic_s=timing.started_monotonic_s + clock_ahead_s
        )
        for timing in records.read_log(Timing, run.timings).records
    ]
    progress = run.progress.read_bytes() if run.progress.exists() else b""
    for log in (run.timings, run.progress):
        log.unlink(missing_ok=True)
    return timings, progress


def _add_timings(run: RunDir, timings: Iterable[Timing]) -> None:
    """Add timings of another host to those of this attempt."""
    attempt = records.read(WorkerTask, run.worker_task).attempt
    for timing in timings:
        append_to_log(run.timings, dataclasses.replace(timing, attempt=attempt))


def _packed(run: RunDir, places: Iterable[Path]) -> dict[str, bytes]:
    """Name within the run -> content, of files and of what is in folders."""
    files: list[Path] = []
    for place in places:
        inside = sorted(place.rglob("*")) if place.is_dir() else [place]
        files += [file for file in inside if file.is_file()]
    return {run.name(file): file.read_bytes() for file in files}


def _unpack(run: RunDir, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        file = run.root / name
        if file.is_dir():
            shutil.rmtree(file)
        with atomic_write(file, len(content)) as handle:
            handle.write(content)
