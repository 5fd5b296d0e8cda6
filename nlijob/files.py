"""Files that are written whole or not at all, safe on disk once written, and their hashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from nlijob.disk import disk_faults
from nlijob.waiting import all_of

READ_BYTES = 1024**2


@contextlib.contextmanager
def atomic_write(path: Path, size_bytes: int | None = None) -> Iterator[BinaryIO]:
    """Open a file beside `path` for writing, and rename it to `path` once it is synced to disk.

    After an error in the block nothing has changed at `path`. Raises DiskError if the disk is the
    reason; `size_bytes`, if it is known beforehand, is for its message.
    """
    with disk_faults(path, size_bytes):
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


def append(path: Path, data: bytes) -> None:
    """Append lines in one write, so that lines of several processes never interleave.

    If the file ends within a line, as after a full disk, the new lines do not join that one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as handle:
        if handle.seek(0, os.SEEK_END):
            handle.seek(-1, os.SEEK_END)
            if handle.read(1) != b"\n":
                data = b"\n" + data
        while data:  # a nearly full disk takes a part, and refuses the rest with an error
            data = data[handle.write(data) :]


def remove(path: Path) -> None:
    """Delete whatever has this name: a file, a link, a folder with all it holds, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """Make an empty folder beside `path`, which replaces `path` once it is synced to disk.

    After an error in the block nothing has changed at `path`. A process that is killed leaves at
    most the folder beside, which has a hidden name and is replaced the next time.
    """
    beside = path.with_name(f".{path.name}.tmp")
    with disk_faults(path):
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


class Piece(NamedTuple):
    """A part of a file, or all of it."""

    file: Path
    start: int = 0
    """Position of its first byte."""
    size: int | None = None
    """Its length in bytes; None for as many as the file has."""


def sha256_of(pieces: Iterable[Piece]) -> list[str]:
    """SHA-256 of each piece in hexadecimal digits, computed on all cores. Raises OSError.

    One core hashes a gigabyte in about a second.
    """
    wanted = list(pieces)
    found = [""] * len(wanted)

    def hash_one(number: int) -> None:
        found[number] = _sha256(wanted[number])

    # Not with a ThreadPoolExecutor: a stop signal that is raised within it can lock it for ever.
    all_of(
        [partial(hash_one, number) for number in range(len(wanted))], len(os.sched_getaffinity(0))
    )
    return found


def _sha256(piece: Piece) -> str:
    digest = hashlib.sha256()
    with piece.file.open("rb", buffering=0) as handle:
        handle.seek(piece.start)
        left = os.fstat(handle.fileno()).st_size if piece.size is None else piece.size
        buffer = memoryview(bytearray(min(READ_BYTES, left)))
        while read := handle.readinto(buffer[:left]):
            digest.update(buffer[:read])
            left -= read
    return digest.hexdigest()
