"""What processes on other hosts need of the run's folder, and what they add to it.

Those on the lead's host, and those that see its folder on shared storage, read and write there. The
others have a folder of their own, with the configuration and where their model lies; they get the
rows from the lead, and hand over what they have made.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from nlijob.files import append, atomic_write
from nlijob.gpu.group import Group
from nlijob.rundir import RunDir

TOKEN = "folder"


def is_elsewhere(run: RunDir, group: Group) -> bool:
    """Whether this process has another folder than the lead; all processes call this."""
    file = run.worker_task.with_name(TOKEN)
    if group.is_lead:
        file.write_text(uuid.uuid4().hex, encoding="utf-8")
    token = group.share(file.read_text(encoding="utf-8") if group.is_lead else "")
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
    if not any(group.gather(elsewhere)):
        return
    logs = {name: log.read_bytes() for name, log in _logs(run).items() if log.exists()}
    given = (_packed(run, made), logs) if elsewhere else ({}, {})
    for files, of_logs in group.collect(given):
        _unpack(run, files)
        for name, lines in of_logs.items():
            append(_logs(run)[name], lines)
    if elsewhere:
        for log in _logs(run).values():
            log.unlink(missing_ok=True)


def _logs(run: RunDir) -> dict[str, Path]:
    return {"timings": run.timings, "progress": run.progress}


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
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file, len(content)) as handle:
            handle.write(content)
