"""Standard output and standard error that outlive their readers.

The reader of a job's log may die, its terminal may go away, its disk may be full. None of these is
a reason to lose hours of work, so what cannot be written to these streams is dropped.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from nlijob.errors import DiskError


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Replace `sys.stdout` and `sys.stderr`, in which a write then never fails, in the block."""
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    if sys.stdout is sys.__stdout__:  # not where a test has replaced them
        sys.stdout = _lasting(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _lasting(sys.stderr, 2)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def check_output() -> None:
    """For a command whose result is its output. Raises DiskError if some of it was dropped.

    It was not if only its reader is gone: `head` takes what it wants.
    """
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    fault = raw.fault if isinstance(raw, _LastingDescriptor) else None
    if fault is not None:
        raise DiskError(
            f"standard output cannot be written: {fault.strerror}",
            "free space where it is redirected to, or choose another file",
        )


def has_no_reader() -> bool:
    """Whether a write to standard output has met a pipe that nobody reads any longer."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, _LastingDescriptor) and raw.has_no_reader


def _open_closed_descriptors() -> None:
    """Open /dev/null for each closed standard stream.

    Otherwise the next file to be opened would get its number, and libraries that print to
    descriptor 1 or 2 would write into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            os.set_inheritable(descriptor, True)


def _lasting(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.flush()
    encoding = stream.encoding if stream is not None else "utf-8"
    buffer = io.BufferedWriter(cast("io.RawIOBase", _LastingDescriptor(descriptor)))
    return io.TextIOWrapper(buffer, encoding, errors="backslashreplace", line_buffering=True)


class _LastingDescriptor(io.RawIOBase):
    """Writes to a descriptor, and drops what cannot be written."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.fault: OSError | None = None
        self.has_no_reader = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # another program made the descriptor non-blocking
                select.select([], [self._descriptor], [])
            except OSError as error:
                if error.errno == errno.EPIPE:
                    self.has_no_reader = True
                else:
                    self.fault = self.fault or error
                return memoryview(data).nbytes
