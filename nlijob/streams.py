"""Standard output and standard error that outlive their readers.

The reader of a job's log may die or stop reading, its terminal may go away, its disk may be full.
None of these is a reason to lose hours of work, so what cannot be written to these streams is
dropped. A reader that is merely slow is waited for without end where the output is the result;
a job, which keeps its log in a file too, waits for some seconds in all.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO, cast

from nlijob.errors import DiskError

PATIENCE_S = 5.0
"""Time for which a job waits, in all, for a reader of its log."""


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


def wait_briefly(patience_s: float = PATIENCE_S) -> None:
    """From now on wait for readers of the two streams for so long in all, then drop lines."""
    for stream in (sys.stdout, sys.stderr):
        if raw := _raw(stream):
            raw.patience_s = patience_s


def check_output() -> None:
    """For a command whose result is its output. Raises DiskError if some of it was dropped.

    It was not if only its reader is gone: `head` takes what it wants.
    """
    sys.stdout.flush()
    raw = _raw(sys.stdout)
    fault = raw.fault if raw else None
    if fault is not None:
        raise DiskError(
            f"standard output cannot be written: {fault.strerror}",
            "free space where it is redirected to, or choose another file",
        )


def has_no_reader() -> bool:
    """Whether a write to standard output has met a pipe that nobody reads any longer."""
    raw = _raw(sys.stdout)
    return raw is not None and raw.has_no_reader


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


def _raw(stream: TextIO) -> _LastingDescriptor | None:
    """What writes the stream to its descriptor; None where a test has replaced the stream."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, _LastingDescriptor) else None


class _LastingDescriptor(io.RawIOBase):
    """Writes to a descriptor, and drops what cannot be written."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._dropped_bytes = 0
        self.fault: OSError | None = None
        self.patience_s: float | None = None
        """Time left for waiting until the descriptor takes something; None: for ever."""
        self.has_no_reader = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self.patience_s is None:
            return self._write(data)
        if not self._is_ready():
            self._dropped_bytes += size
            return size
        if self._dropped_bytes:
            dropped, self._dropped_bytes = self._dropped_bytes, 0
            self._write(f"\n[{dropped:,} bytes were left out, as nobody read them]\n".encode())
            return self.write(data)
        # A pipe that is ready takes this much without blocking; the caller writes the rest.
        return self._write(memoryview(data)[: select.PIPE_BUF])

    def _is_ready(self) -> bool:
        """Whether the descriptor takes something; waits for that as long as there is patience."""
        limit_s = None if self.patience_s is None else max(0.0, self.patience_s)
        started = time.monotonic()
        ready = select.select([], [self._descriptor], [], limit_s)[1]
        if self.patience_s is not None:
            self.patience_s -= time.monotonic() - started
        return bool(ready)

    def _write(self, data: Any) -> int:
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # another program made the descriptor non-blocking
                if not self._is_ready():
                    return memoryview(data).nbytes
            except OSError as error:
                if error.errno == errno.EPIPE:
                    self.has_no_reader = True
                else:
                    self.fault = self.fault or error
                return memoryview(data).nbytes
