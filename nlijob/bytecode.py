"""A place for Python's compiled modules, where those of the libraries are missing or out of date.

The GPU side imports some 3,000 modules. Compiling them takes several times as long as all the rest
of its start, and is due at each start if the compiled ones cannot be used and Python may not write
new ones beside the sources: where packages were installed without compiling them, or a copy of the
files has other times, and the folder is read-only or PYTHONDONTWRITEBYTECODE is set. Python can
keep them in a folder of their own instead, which then lies in the hub client's cache (HF_HOME).
The first time, all cores but one compile the libraries while the GPU side imports them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from nlijob.cache import cache_folder

PREFIX, DONT_WRITE = "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE"
PACKAGES = ("torch", "transformers", "peft")
SAMPLE = 8
"""Number of modules of each package that are looked at."""
HEADER = struct.Struct("<4sIII")
"""What a compiled module begins with: Python's version, flags, time and size of the source."""
FOLDER = ".bytecode"
COMPILED = ("numpy", "torch", "accelerate", "transformers", "peft", "sympy", "mpmath", "networkx")
"""Packages that the GPU side imports much of, in this order."""
LEFT_OUT = r"/tests?/|/testing/|/transformers/models/(?!auto/)"
"""What of them it does not import, as a pattern for the path."""
FEWEST_CORES = 4
"""With fewer cores, compiling would take its time from the imports, which one core is left to."""
MOST_CORES = 32


def bytecode_environment(
    own: Mapping[str, str], sources: Iterable[Path] | None = None
) -> dict[str, str]:
    """Variables by which a process finds a place for compiled modules, if it needs another one.

    `own`: the environment without them. `sources`: modules that it imports; by default, some of
    its libraries.
    """
    if own.get(PREFIX):
        return {}
    if sys.pycache_prefix:  # this process has found one (`use_place`)
        return {PREFIX: sys.pycache_prefix, DONT_WRITE: ""}
    sample = list(_sample() if sources is None else sources)
    missing = [source for source in sample if not is_compiled(source)]
    if 2 * len(missing) <= len(sample):
        return {}
    if not own.get(DONT_WRITE) and all(os.access(one.parent, os.W_OK) for one in missing):
        return {}  # Python writes them beside the sources
    folder = _own_folder()
    return {} if folder is None else {PREFIX: str(folder), DONT_WRITE: ""}


def use_place() -> None:
    """Have this process read and write compiled modules where its GPU side will, from now on."""
    if place := bytecode_environment(os.environ):
        sys.pycache_prefix = place[PREFIX]
        sys.dont_write_bytecode = False


def is_compiled(source: Path) -> bool:
    """Whether Python would use what it has compiled of a module."""
    try:
        state = source.stat()
        with open(importlib.util.cache_from_source(str(source)), "rb") as compiled:
            magic, flags, time_s, size = HEADER.unpack(compiled.read(HEADER.size))
    except (OSError, struct.error, NotImplementedError):
        return False
    if magic != importlib.util.MAGIC_NUMBER:
        return False
    # with a flag, it carries a hash of the source instead
    return bool(flags) or (time_s, size) == (int(state.st_mtime) & 2**32 - 1, state.st_size)


def compile_ahead(
    place: Mapping[str, str], own: Mapping[str, str]
) -> subprocess.Popen[bytes] | None:
    """Begin to compile the libraries' modules by many cores, if their place has none of them.

    `place`: see `bytecode_environment`; `own`: the environment without it. The caller ends the
    process group that is returned (`end_compiling`), if it does not end before.
    """
    cores = len(os.sched_getaffinity(0))
    folders = [str(folder) for name in COMPILED if (folder := _folder_of(name))]
    command = [sys.executable, "-m", "compileall", "-q", "-j", str(min(cores - 1, MOST_CORES))]
    with contextlib.suppress(OSError):  # the imports do without
        if place and cores >= FEWEST_CORES and not _has_libraries(Path(place[PREFIX])):
            return subprocess.Popen(
                [*command, "-x", LEFT_OUT, *folders],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**own, **place},
                start_new_session=True,
            )
    return None


def end_compiling(process: subprocess.Popen[bytes]) -> None:
    """End what `compile_ahead` has begun. A module that is not compiled yet is so at its import."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _has_libraries(place: Path) -> bool:
    """Whether modules of the largest library were compiled there before."""
    folder = _folder_of(PACKAGES[0])
    return folder is None or (place / folder.relative_to(folder.anchor)).exists()


def _sample() -> Iterable[Path]:
    """Some modules of the libraries, none of which is imported."""
    for name in PACKAGES:
        if folder := _folder_of(name):
            yield from sorted(folder.glob("*.py"))[:SAMPLE]


def _folder_of(package: str) -> Path | None:
    """Where a package lies, which is not imported; None if it is not installed."""
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(package)
        if spec and spec.origin:
            return Path(spec.origin).parent
    return None


def _own_folder() -> Path | None:
    """A folder for this user alone, as its contents are executed; None where there can be none."""
    folder = cache_folder().absolute() / f"{FOLDER}-{os.getuid()}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
    except OSError:
        return None
    is_own = stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid()
    is_private = is_own and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return folder if is_private and os.access(folder, os.W_OK) else None
