"""Which files of a run are copied, and which files its completion markers list."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from nlijob import records
from nlijob.records.job import FileStamp, Marker
from nlijob.rundir import OF_ONE_ATTEMPT, RunDir


class Stamp(NamedTuple):
    """Size and time of modification of a file, by which changes are noticed."""

    size: int
    changed_ns: int


def is_copied(name: str) -> bool:
    """Whether a file of a run belongs in a copy; locks, messages and unfinished files do not.

    Neither do names that lead out of the run's folder, which a bucket may contain.
    """
    plain = all(part and not part.startswith(".") for part in name.split("/"))
    return plain and not name.endswith(".tmp") and name not in OF_ONE_ATTEMPT


def stamps(root: Path, under: str = "") -> dict[str, Stamp]:
    """Name -> stamp of the files to copy, in the whole run or in the folder `under` of it."""
    found = {}
    for folder, _, files in os.walk(root / under):
        for path in (Path(folder, file) for file in files):
            name = path.relative_to(root).as_posix()
            if is_copied(name) and (stamp := stamp_of(path)):
                found[name] = stamp
    return found


def stamp_of(path: Path) -> Stamp | None:
    """The file's stamp, or None if the file is gone."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return Stamp(state.st_size, state.st_mtime_ns)


def markers(root: Path) -> dict[str, bytes]:
    """Name -> content of the markers in a run's folder, with epochs in order."""
    run = RunDir(root)
    files = [run.marker(name) for name in run.marked()]
    contents = {run.name(file): content_of(file) for file in files}
    return {name: content for name, content in contents.items() if content}


def content_of(path: Path) -> bytes | None:
    """The file's content, or None if the file is gone."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def listed(marker: bytes) -> dict[str, int]:
    """Name -> bytes of the files that a marker lists. Raises ValueError if it is not a marker."""
    return _sizes(_read(marker).files)


def fingerprint_of(marker: bytes) -> str:
    """The fingerprint in a marker. Raises ValueError if it is not a marker."""
    return _read(marker).fingerprint


def needed_to_continue(marker: bytes) -> dict[str, int]:
    """Name -> bytes of the files that are needed only to continue from the marked epoch.

    Raises ValueError if it is not a marker.
    """
    return _sizes(_read(marker).to_continue)


def is_valid(marker: bytes, sizes: Mapping[str, int]) -> bool:
    """Whether all files that a marker lists are among those in `sizes` (name -> bytes)."""
    try:
        claimed = listed(marker)
    except ValueError:
        return False
    return all(sizes.get(name) == size for name, size in claimed.items())


def _read(marker: bytes) -> Marker:
    return records.from_json(Marker, json.loads(marker))


def _sizes(files: Mapping[str, FileStamp]) -> dict[str, int]:
    return {name: stamp.size_bytes for name, stamp in files.items()}
