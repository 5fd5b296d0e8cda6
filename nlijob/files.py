"""Files that are written whole or not at all, and are safe on disk once written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from nlijob.disk import disk_faults


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


def sync(path: Path) -> None:
    """Return once a file, or the list of names in a folder, is safe on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
