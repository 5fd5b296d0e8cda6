"""Writing beside the work: slow disks do not hold the GPU up."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Writer:
    """Does one piece of writing at a time, in order, while the caller goes on.

    Use as a context manager, which lets what is being written be finished, whatever happens.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._last: Future[None] | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def do(self, write: Callable[[], None]) -> None:
        """Begin to write, once what was begun before is done; raises what that raised."""
        self.wait()
        self._last = self._thread.submit(write)

    def wait(self) -> None:
        """Return once everything is written; raises what writing raised."""
        last, self._last = self._last, None
        if last is not None:
            last.result()
