"""One repository in the cache of the hub's client: what belongs there, and whether it is whole.

The layout is the client's own, so that other tools find the files: `blobs` are named by the hash of
their content, `snapshots/<commit>` links to them, `refs` has the commits of branches, and `trees`
the lists of files. Beside these lies `verified.json`, so that no file is hashed at every run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from uuid import uuid4

COMMIT = re.compile(r"[0-9a-f]{40}")
READ_BYTES = 4 * 1024**2
OTHERS_POLL_S = 1.0
"""Interval at which a download by another process is looked at."""
OTHERS_STALL_S = 60.0
"""A download by another process is no longer waited for after this time without a byte."""
VERIFIED = "verified.json"

_HASHES: dict[int, Callable[[int], Any]] = {
    40: lambda size: hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False),
    64: lambda size: hashlib.sha256(),
}
"""Digits of a hub file's hash -> its beginning: git's name of a blob, or the SHA-256 of git LFS."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository as the hub describes it."""

    name: str
    etag: str
    """The hub's name for the content, which is a hash of it."""
    size: int | None
    """Size in bytes; None if only the cache knows the file."""

    @property
    def hash(self) -> str | None:
        """The content's hash, if the etag is one."""
        return self.etag if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", self.etag) else None

    @property
    def promise(self) -> str:
        """What the content should be, in words."""
        size = "" if self.size is None else f"{self.size:,} bytes"
        return " with hash ".join(filter(None, (size, self.hash))) or "unknown"


class RepoCache:
    """The folder of one repository. Files may be used and added by several processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._verified = _read_json(folder / VERIFIED)

    # ------------------------------------------------------------ what the hub said

    def commit_of(self, revision: str) -> str | None:
        """The commit that a revision stood for when it was last asked for."""
        try:
            commit = (self.folder / "refs" / revision).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        return commit if COMMIT.fullmatch(commit) else None

    def keep_commit(self, revision: str, commit: str) -> None:
        """Remember the commit of a revision."""
        if revision != commit and self.commit_of(revision) != commit:
            _keep(self.folder / "refs" / revision, commit)

    def files(self, commit: str) -> list[HubFile] | None:
        """The files of a commit, or None if their list is not in the cache."""
        listed = _read_json(self.folder / "trees" / f"{commit}.json")
        try:
            if listed["format_version"] != 1:
                return None
            files = [_of_tree(name, entry) for name, entry in listed["files"].items()]
        except (KeyError, TypeError, AttributeError, ValueError):
            return None
        return files if all(is_inside(file.name) for file in files) else None

    def keep_files(self, commit: str, tree: Sequence[Mapping[str, Any]]) -> list[HubFile]:
        """The files of a commit, given as the hub lists them, which are remembered.

        Raises ValueError if the list is not one that can be used.
        """
        try:
            entries = {str(entry["path"]): _to_tree(entry) for entry in tree}
            files = [_of_tree(name, entry) for name, entry in entries.items()]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"an entry without {error}") from error
        for name in entries:
            if not is_inside(name):
                raise ValueError(f"a file named {name!r}")
        listed = {"format_version": 1, "files": entries}
        _keep(self.folder / "trees" / f"{commit}.json", json.dumps(listed, indent=1))
        return files

    def snapshot(self, commit: str) -> Path:
        """The folder with a commit's files."""
        return self.folder / "snapshots" / commit

    def found(self, commit: str) -> list[HubFile]:
        """The files that the cache has of a commit, for one whose list it does not have."""
        folder = self.snapshot(commit)
        paths = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
        return [
            HubFile(path.relative_to(folder).as_posix(), _linked_name(path), None)
            for path in sorted(paths)
        ]

    # ------------------------------------------------------------ whole or not

    def has(self, commit: str, file: HubFile) -> bool:
        """Whether there is a file of this name and size; its content is not read."""
        path = self.snapshot(commit) / file.name
        try:
            return path.is_file() and file.size in (None, path.stat().st_size)
        except OSError:
            return False

    def fault(self, commit: str, file: HubFile, moved: Callable[[], None]) -> str | None:
        """What the cache has in place of the file, in words; None if it has the file.

        The content is hashed once, and again when its size or time of change are others.
        """
        return self._fault(self.snapshot(commit) / file.name, file, moved)

    def _fault(self, path: Path, file: HubFile, moved: Callable[[], None]) -> str | None:
        try:
            state = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return "nothing"
        size = state.st_size
        if not path.is_file() or (file.size is not None and size != file.size):
            return f"{size:,} bytes"
        if file.hash is None or self._verified.get(file.hash) == [size, state.st_mtime_ns]:
            return None
        found = _hash_of(path, file.hash, size, moved)
        if found != file.hash:
            return f"{size:,} bytes with hash {found}"
        with self._lock:
            self._verified[file.hash] = [size, state.st_mtime_ns]
        return None

    def keep_verified(self) -> None:
        """Remember which files were found whole, unless the cache is read-only."""
        verified = self._verified
        if verified != (kept := _read_json(self.folder / VERIFIED)):
            _keep(self.folder / VERIFIED, json.dumps({**kept, **verified}))

    # ------------------------------------------------------------ adding files

    def add(
        self,
        commit: str,
        file: HubFile,
        download: Callable[[BinaryIO], None],
        moved: Callable[[], None],
    ) -> str | None:
        """Put a file into the cache: link what is there already, or else download it.

        `download` appends what is missing to a file. Returns what was found in place of the file if
        its bytes are not those that the hub promised, else None. Bad bytes are deleted.
        """
        blob = self.folder / "blobs" / _blob_name(commit, file)
        pointer = self.snapshot(commit) / file.name
        if self._fault(blob, file, moved) is not None:
            with _part(blob, moved) as part:
                # another process may have finished it meanwhile
                if self._fault(blob, file, moved) is not None:
                    _delete(blob)
                    _delete(pointer)
                    download(part)
                    part.flush()
                    os.fsync(part.fileno())
                    fault = self._fault(Path(part.name), file, moved)
                    if fault is not None:
                        Path(part.name).unlink()
                        return fault
                    Path(part.name).replace(blob)
        _link(pointer, blob)
        return None


def is_inside(name: str) -> bool:
    """Whether a name of the hub stays in the folder that it is written to."""
    path = PurePosixPath(name)
    parts = name.split("/")
    plain = not path.is_absolute() and "\0" not in name
    return plain and all(part not in ("", ".", "..") for part in parts)


def _of_tree(name: str, entry: Mapping[str, Any]) -> HubFile:
    large = entry.get("lfs_sha256")
    size = entry["lfs_size"] if large else entry["size"]
    if not isinstance(size, int):
        raise TypeError(size)
    return HubFile(name, str(large or entry["blob_id"]), size)


def _to_tree(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the hub's list of files as the client keeps it. Raises KeyError, TypeError."""
    kept: dict[str, Any] = {"size": entry["size"], "blob_id": entry["oid"]}
    large = entry.get("lfs")
    if isinstance(large, Mapping):
        kept |= {"lfs_sha256": large["oid"], "lfs_size": large["size"]}
    if entry.get("xetHash"):
        kept["xet_hash"] = entry["xetHash"]
    return kept


def _blob_name(commit: str, file: HubFile) -> str:
    """The etag, unless it is no name for a file."""
    if re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]{0,99}", file.etag):
        return file.etag
    return hashlib.sha256(f"{commit}/{file.name}/{file.etag}".encode()).hexdigest()[:32]


def _hash_of(path: Path, expected: str, size: int, moved: Callable[[], None]) -> str:
    digest: hashlib._Hash = _HASHES[len(expected)](size)
    buffer = memoryview(bytearray(READ_BYTES))
    with path.open("rb", buffering=0) as handle:
        while read := handle.readinto(buffer):
            digest.update(buffer[:read])
            moved()
    return digest.hexdigest()


def _linked_name(path: Path) -> str:
    """The name of the blob that a snapshot's file links to, or "" if it is no link."""
    return Path(os.readlink(path)).name if path.is_symlink() else ""


def _link(pointer: Path, blob: Path) -> None:
    """Let the snapshot's name point to the blob, whatever was there before."""
    if pointer.is_symlink() and pointer.exists() and pointer.resolve() == blob.resolve():
        return
    pointer.parent.mkdir(parents=True, exist_ok=True)
    beside = pointer.with_name(f".{pointer.name}.{uuid4().hex}.tmp")
    try:
        beside.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:  # a file system without links
        shutil.copyfile(blob, beside)
    beside.replace(pointer)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _part(blob: Path, moved: Callable[[], None]) -> Iterator[BinaryIO]:
    """The unfinished blob, open for one process at a time; a killed download is gone on with.

    While another process downloads it, this waits. If that one gets no further, or the file system
    has no locks, the file is one of this process's own.
    """
    blob.parent.mkdir(parents=True, exist_ok=True)
    shared = blob.with_name(f"{blob.name}.part")
    handle = _locked(shared, blob, moved)
    if handle is not None:
        with handle:
            yield handle
        return
    own = blob.with_name(f"{blob.name}.{uuid4().hex}.part")
    try:
        with own.open("w+b") as handle:
            yield handle
    finally:
        own.unlink(missing_ok=True)


def _locked(shared: Path, blob: Path, moved: Callable[[], None]) -> BinaryIO | None:
    """`shared`, opened and locked; None if it cannot be locked or its holder gets no further."""
    size, since = -1, time.monotonic()
    while True:
        handle = shared.open("a+b")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same(handle, shared) or blob.exists():
                return handle
        except BlockingIOError:
            pass
        except OSError:  # a file system without locks
            handle.close()
            with contextlib.suppress(FileNotFoundError):
                if shared.stat().st_size == 0:
                    shared.unlink()
            return None
        now_bytes = os.fstat(handle.fileno()).st_size
        handle.close()
        if now_bytes != size:
            size, since = now_bytes, time.monotonic()
            moved()
        elif time.monotonic() - since > OTHERS_STALL_S:
            return None
        time.sleep(OTHERS_POLL_S)


def _is_same(handle: BinaryIO, path: Path) -> bool:
    """Whether the path still leads to the open file, which its last holder may have renamed."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _keep(path: Path, text: str) -> None:
    """Write a small file that can be had again, unless the cache is read-only or full.

    Its temporary name is its own even among containers, whose processes have the same numbers.
    """
    beside = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    with contextlib.suppress(OSError):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
