"""Compiled kernels on disk, so that the next job need not compile them again.

They lie in the hub client's cache (HF_HOME), beside the copies of quantised models, and are used
only if source, options, GPU architecture and compiler are the same. Several processes may read and
write at once. Without a writable cache, kernels are compiled anew each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from nlijob.cache import cache_folder
from nlijob.errors import DiskError
from nlijob.files import atomic_write

FOLDER = ".kernels"
"""Beside the folders of models, whose names do not begin with a dot."""
MOST = 128
"""Number of files that are kept, those that were used last; one takes about 100 kB."""
HASH_BYTES = hashlib.sha256().digest_size


class KernelCache:
    """A folder of kernels; it may not exist yet."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / FOLDER

    def get(
        self, text: bytes, options: Sequence[str], compiler: str, compile_: Callable[[], bytes]
    ) -> bytes:
        """The compiled source: what was kept of it or, without that, what `compile_` returns.

        `options`: those of the compiler; the GPU's architecture is one of them. `compiler`: its
        name and version.
        """
        content = [hashlib.sha256(text).hexdigest(), *options, compiler]
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        file = self.folder / f"{name[:32]}.cubin"
        if (kept := _read(file)) is not None:
            return kept
        compiled = compile_()
        with contextlib.suppress(OSError, DiskError):
            self._write(file, compiled)
        return compiled

    def _write(self, file: Path, compiled: bytes) -> None:
        with atomic_write(file) as handle:
            handle.write(hashlib.sha256(compiled).digest() + compiled)
        file.chmod(0o644)  # several users may share the cache, as with the hub client's
        used = sorted(self.folder.glob("*.cubin"), key=lambda one: one.stat().st_mtime)
        for old in used[:-MOST]:
            old.unlink(missing_ok=True)


def _read(file: Path) -> bytes | None:
    """What a file holds, if it is there and whole."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    digest, compiled = data[:HASH_BYTES], data[HASH_BYTES:]
    if not compiled or hashlib.sha256(compiled).digest() != digest:
        return None
    with contextlib.suppress(OSError):  # it may belong to another user
        file.touch()
    return compiled
