"""Files that are written whole or not at all, and are safe on disk once written."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside `path` for writing, and rename it to `path` once it is synced to disk.

    After an error in the block nothing has changed at `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)


@contextlib.contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """Make an empty folder beside `path`, which replaces `path` once it is synced to disk.

    After an error in the block nothing has changed at `path`. A process that is killed leaves at
    most the folder beside, which has a hidden name and is replaced the next time.
    """
    beside = path.with_name(f".{path.name}.tmp")
    remove(beside)
    beside.mkdir(parents=True)
    try:
        yield beside
        for file in beside.iterdir():
            sync(file)
        sync(beside)
        remove(path)
        _rename_folder(beside, path)
    finally:
        remove(beside)
    sync(path.parent)


def remove(path: Path) -> None:
    """Delete a file, a link, or a folder with all that it contains; do nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _rename_folder(folder: Path, to: Path) -> None:
    """Rename a folder of files; where a file system cannot (a mounted bucket), move the files."""
    try:
        folder.rename(to)
    except OSError:
        to.mkdir(exist_ok=True)
        for file in folder.iterdir():
            file.replace(to / file.name)
        sync(to)


def sync(path: Path) -> None:
    """Return once a file, or the list of names in a folder, is safe on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
