"""Which files of a run are copied, and which files its completion markers list."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from nlijob import records
from nlijob.records.job import FileStamp, Marker
from nlijob.rundir import MARKERS, NOT_COPIED, OUTCOME_OF, RunDir

LONGEST_NAME = 255
"""Bytes in a name of a file or folder."""


class Stamp(NamedTuple):
    """Size and time of modification of a file, by which changes are noticed."""

    size: int
    changed_ns: int


def is_copied(name: str) -> bool:
    """Whether a file of a run belongs in a copy; locks, messages and unfinished files do not.

    Neither do names that lead out of the run's folder or that no file can have, which a bucket may
    contain.
    """
    try:
        parts = name.encode().split(b"/")
    except UnicodeEncodeError:  # no text: buckets have no such names
        return False
    plain = all(part and not part.startswith(b".") and len(part) <= LONGEST_NAME for part in parts)
    is_message = name in NOT_COPIED or name.startswith(OUTCOME_OF)
    is_whole = not name.endswith(".tmp")
    return plain and is_whole and not is_message and "\0" not in name


def is_of_a_run(name: str) -> bool:
    """Whether a name is in one of the folders of a run, or like a file that lies beside them."""
    return name.split("/")[0] in _names_at_the_top()


@lru_cache
def _names_at_the_top() -> frozenset[str]:
    root = Path("/")
    paths = [path for path in vars(RunDir(root)).values() if isinstance(path, Path)]
    return frozenset({MARKERS.rstrip("/"), *(path.parts[1] for path in paths if path != root)})


def clear_way(root: Path, name: str) -> Path:
    """The path of `name` below `root`, once nothing is left that would lead a writer elsewhere.

    Links are deleted, not what they lead to; so is a folder in place of the file, or a file in
    place of a folder.
    """
    path = root
    parts = name.split("/")
    for part in parts[:-1]:
        path = path / part
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            path.unlink()
    path = path / parts[-1]
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink():
        path.unlink()
    return path


def stamps(root: Path, under: str = "") -> dict[str, Stamp]:
    """Name -> stamp of the files to copy, in the whole run or in the folder `under` of it.

    Links are not followed: what they lead to may lie anywhere.
    """
    found: dict[str, Stamp] = {}
    if under and (root / under).is_symlink():
        return found
    for folder, _, files in os.walk(root / under):
        for path in (Path(folder, file) for file in files):
            name = path.relative_to(root).as_posix()
            if is_copied(name) and (stamp := stamp_of(path)):
                found[name] = stamp
    return found


def stamp_of(path: Path) -> Stamp | None:
    """The file's stamp, or None if the file is gone or is a link, a pipe or the like."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(state.st_mode):
        return None
    return Stamp(state.st_size, state.st_mtime_ns)


def markers(root: Path) -> dict[str, bytes]:
    """Name -> content of the markers in a run's folder, with epochs in order."""
    run = RunDir(root)
    files = [run.marker(name) for name in run.marked()]
    contents = {run.name(file): content_of(file) for file in files}
    return {name: content for name, content in contents.items() if content}


def content_of(path: Path) -> bytes | None:
    """The file's content, or None if the file is gone or no file."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return None


def stamps_listed(marker: bytes) -> dict[str, FileStamp]:
    """Name -> size and hash of the files that a marker lists.

    Raises ValueError if it is not a marker.
    """
    return _read(marker).files


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
    return records.from_json(Marker, records.parse(marker))


def _sizes(files: Mapping[str, FileStamp]) -> dict[str, int]:
    return {name: stamp.size_bytes for name, stamp in files.items()}
