"""Tells faults of the disk from other errors, and says which folder and how much is free.

Libraries report such faults in many ways: as an OSError, with or without the file's name, as an
OSError behind an error of their own, or as a text only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nlijob.errors import DiskError, JobError

NO_TEMPORARY_FOLDER = -1
"""Stands for the error of `tempfile` where it finds no folder; it has no number of its own."""
REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file would exceed the largest size that is allowed here (see `ulimit -f`)",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk reports an error",
    errno.ESTALE: "the network file system has lost a file",
    errno.ENOLCK: "the file system offers no locks",
    NO_TEMPORARY_FOLDER: "no folder for temporary files can be written to (TMPDIR, /tmp)",
}
"""Errors that can only come from the disk -> what they mean."""
REASONS_OF_A_PATH = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOTDIR: "there is a file where a folder is needed",
    errno.EEXIST: "there is a file where a folder is needed",
    errno.EISDIR: "there is a folder where a file is needed",
    errno.ENAMETOOLONG: "a name is too long for the file system",
    errno.ELOOP: "symbolic links lead in a circle",
    errno.ENOTCONN: "the file system is not connected",
    errno.ENODEV: "the device is gone",
    errno.ENXIO: "the device is gone",
}
"""Errors that come from the disk if they name a path -> what they mean."""
TEXTS = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
    "Input/output error": errno.EIO,
    "No locks available": errno.ENOLCK,
    "PytorchStreamWriter failed": errno.ENOSPC,
    "inline_container.cc": errno.ENOSPC,  # what torch.save says of an incomplete archive
    "No usable temporary directory": NO_TEMPORARY_FOLDER,
}
"""Texts by which libraries in C++ and Rust report these errors."""
NEEDS_SPACE = (errno.ENOSPC, errno.EDQUOT)
HINTS = {
    errno.EFBIG: "raise the limit",
    errno.EROFS: "choose a folder that can be written to",
    errno.EIO: "look at the system's log, or choose another disk",
    errno.ENOLCK: "choose a folder on another file system with --runs-dir",
}
RESUME = "the same command then continues from what is complete"


@contextlib.contextmanager
def disk_faults(path: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Raise DiskError in place of an error of the disk in the block, which uses `path`.

    `needed_bytes`: the space that the block needs, if that is known.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, JobError) or (fault := disk_fault(error, path, needed_bytes)) is None:
            raise
        raise fault from error


def disk_fault(
    error: BaseException, path: Path | None = None, needed_bytes: int | None = None
) -> DiskError | None:
    """The DiskError that describes an error of the disk, or None if it is another error.

    `path` is the file or folder that was in use, if the error does not name one.
    """
    found = _number_and_name(error)
    if found is None:
        return None
    number, name = found
    if name and path and Path(name).name == f".{path.name}.{os.getpid()}.tmp":
        name = str(path)  # which this file was to become
    place = Path(name) if name else _fullest(path) if number in NEEDS_SPACE else path
    reason = REASONS.get(number) or REASONS_OF_A_PATH[number]
    where = f"{place}: " if place else ""
    parts = [f"{where}{reason}"]
    if number in NEEDS_SPACE and place:
        parts.append(free_text(place))
        if needed_bytes:
            parts.append(f"{size_text(needed_bytes)} needed")
    hint = HINTS.get(number, "free space there, or choose another folder")
    if number in REASONS_OF_A_PATH:
        hint = "make it accessible, or choose another folder"
    return DiskError("; ".join(parts), f"{hint}; {RESUME}")


def _number_and_name(error: BaseException) -> tuple[int, str | None] | None:
    """The error's number and the path it names, from the error or from one that it hides."""
    seen: BaseException | None = error
    while seen is not None:
        name = getattr(seen, "filename", None)
        name = os.fsdecode(name) if isinstance(name, str | bytes) else None
        number = _number(seen)
        if number in REASONS or (seen is error and name and number in REASONS_OF_A_PATH):
            assert number is not None
            return number, name
        seen = seen.__cause__ or seen.__context__
    return None


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
        return error.errno
    kind = type(error)
    of_library = kind.__base__ is Exception and kind.__module__ != "builtins"
    if not of_library and not isinstance(error, OSError | RuntimeError):
        return None  # a ValueError, say, may quote the text of a row
    text = str(error)
    if found := re.search(r"\(os error (\d+)\)", text):  # Rust: safetensors, tokenizers
        return int(found[1])
    return next((number for part, number in TEXTS.items() if part in text), None)


def _fullest(path: Path | None) -> Path | None:
    """The folder with least free space among those that a job writes to, which is the full one."""
    cache = os.environ.get("HF_HOME", "~/.cache/huggingface")
    places = [path] if path else []
    places.append(Path(os.path.expanduser(cache)))
    with contextlib.suppress(OSError):  # it looks for a folder that can be written to
        places.append(Path(tempfile.gettempdir()))
    free = {place: space for place in places if (space := free_bytes(place)) is not None}
    return min(free, key=lambda place: free[place], default=path)


def free_text(place: Path) -> str:
    """The space that is free in a folder, for a message."""
    free = free_bytes(place)
    if free is None:
        return "free space not measured"
    with contextlib.suppress(OSError):
        state = os.statvfs(existing_folder(place))
        if state.f_files and not state.f_favail:
            return f"{size_text(free)} free, but no more files can be made (no free inodes)"
    return f"{size_text(free)} free"


def free_bytes(place: Path) -> int | None:
    """The space that is free where a folder is, or will be; None if that cannot be read."""
    try:
        return shutil.disk_usage(existing_folder(place)).free
    except OSError:
        return None


def existing_folder(place: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    place = place.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return place


def size_text(size_bytes: int) -> str:
    """A size on disk in decimal units, for a message."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
