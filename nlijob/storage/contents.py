"""Which files of a run are copied, and which files its completion markers list."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from nlijob import records
from nlijob.rundir import OF_ONE_ATTEMPT, RunDir


class Stamp(NamedTuple):
    """Size and time of a file, which show whether it changed."""

    size: int
    changed_ns: int


def is_copied(name: str) -> bool:
    """Whether a file of a run is copied; locks, messages and unfinished files are not.

    Names that lead out of the run's folder are refused, because a bucket can hold any name.
    """
    plain = all(part and not part.startswith(".") for part in name.split("/"))
    return plain and not name.endswith(".tmp") and name not in OF_ONE_ATTEMPT


def stamps(root: Path, under: str = "") -> dict[str, Stamp]:
    """Name -> stamp of the files to copy, in the whole run or in one of its folders."""
    found = {}
    for folder, _, files in os.walk(root / under):
        for path in (Path(folder, file) for file in files):
            name = path.relative_to(root).as_posix()
            if is_copied(name) and (stamp := stamp_of(path)):
                found[name] = stamp
    return found


def stamp_of(path: Path) -> Stamp | None:
    """Stamp of the file; None where it has been deleted."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return Stamp(state.st_size, state.st_mtime_ns)


def markers(root: Path) -> dict[str, bytes]:
    """Name -> content of the markers in a run's folder, epochs in their order."""
    run = RunDir(root)
    files = [run.marker(name) for name in run.marked()]
    contents = {run.name(file): content_of(file) for file in files}
    return {name: content for name, content in contents.items() if content}


def content_of(path: Path) -> bytes | None:
    """Content of the file; None where it has been deleted."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def vouched(marker: bytes) -> dict[str, int]:
    """Name -> bytes of the files that a marker lists. Raises ValueError where it is damaged."""
    return records.from_json(records.Marker, json.loads(marker)).sizes


def is_kept(marker: bytes, sizes: Mapping[str, int]) -> bool:
    """Whether every file that a marker lists is in `sizes` (name -> bytes) with its size."""
    try:
        claimed = vouched(marker)
    except ValueError:
        return False
    return all(sizes.get(name) == size for name, size in claimed.items())
