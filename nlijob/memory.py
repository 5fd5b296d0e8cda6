"""Tells a lack of memory from other errors, and reads what the kernel says about it."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path

TEXTS = (
    "out of memory",
    "OutOfMemory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator",
    "can't allocate memory",
    "annot allocate memory",
    "could not allocate memory",
    "unable to allocate",
    "bad_alloc",
    "bad allocation",
    "not enough memory",
    "MemoryError",
    "can't start new thread",  # each needs memory for its stack
    "Thread creation failed",
    "thread constructor failed",
)
"""Texts by which Python, torch, CUDA, C++, Rust, OpenMP and the C library report it."""
PATTERN = re.compile("|".join(map(re.escape, (*TEXTS, "memory allocation of"))), re.IGNORECASE)
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, says that memory ran out.

    The error that ends a CUDA graph capture may hide the one that interrupted it.
    """
    while error:
        if isinstance(error, MemoryError):  # NumPy's and Arrow's errors are, too
            return True
        # EAGAIN is what `fork` answers
        if isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EAGAIN):
            return True
        if isinstance(error, RuntimeError | ImportError | OSError) and speaks_of_memory(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def speaks_of_memory(text: str) -> bool:
    """Whether a library's message or log says that memory ran out."""
    return PATTERN.search(text) is not None


@dataclass(frozen=True)
class MemoryGroup:
    """A control group that limits the memory of this process (Linux, cgroup version 1 or 2)."""

    folder: Path

    @property
    def kills(self) -> int | None:
        """Number of processes that the kernel has killed in it for want of memory."""
        for name in ("memory.events", "memory.oom_control"):
            if found := re.search(r"^oom_kill (\d+)$", _text(self.folder / name), re.MULTILINE):
                return int(found[1])
        return None

    @property
    def limit_bytes(self) -> int | None:
        """Its limit; None if it has none."""
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _text(self.folder / name).strip()
            if text.isdecimal() and int(text) < 2**60:  # version 1 says "no limit" so
                return int(text)
        return None

    @property
    def peak_bytes(self) -> int | None:
        """The most that it has ever used."""
        for name in ("memory.peak", "memory.max_usage_in_bytes"):
            text = _text(self.folder / name).strip()
            if text.isdecimal():
                return int(text)
        return None


def memory_groups(own: Path = OWN_CGROUPS, root: Path = CGROUPS) -> list[MemoryGroup]:
    """The control groups of this process, from the innermost to the root."""
    folders: list[Path] = []
    for line in _text(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            base = root
        elif "memory" in controllers.split(","):
            base = root / "memory"
        else:
            continue
        inner = base / path.lstrip("/")
        folders += [inner, *(parent for parent in inner.parents if parent.is_relative_to(base))]
    return [MemoryGroup(folder) for folder in folders if folder.is_dir()]


@dataclass(frozen=True)
class KernelMemory:
    """How many processes the kernel had killed for want of memory, at one moment."""

    kills: dict[Path, int]

    @classmethod
    def now(cls) -> KernelMemory:
        """The present numbers, of the control groups that can be read."""
        kills = {group.folder: group.kills for group in memory_groups()}
        return cls({folder: count for folder, count in kills.items() if count is not None})

    def killed_since(self, earlier: KernelMemory) -> bool:
        """Whether the kernel has killed a process of these groups since an earlier moment."""
        return any(count > earlier.kills.get(at, count) for at, count in self.kills.items())


def memory_text() -> str:
    """The memory that this process may use and used, for a message: a limit, or the machine's."""
    import psutil

    limits = [(limit, group) for group in memory_groups() if (limit := group.limit_bytes)]
    try:
        memory = psutil.virtual_memory()
    except (psutil.Error, OSError):  # no /proc
        memory = None
    if limits:
        least, group = min(limits, key=lambda found: found[0])
        if memory is None or least < memory.total:
            peak = group.peak_bytes
            used = "" if peak is None else f" and used up to {_gib(peak)}"
            return f"the container may use {_gib(least)}{used}"
    if memory is None:
        return "how much the machine has cannot be read"
    return f"the machine has {_gib(memory.total)}, of which {_gib(memory.available)} are available"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**3:.1f} GiB"


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
