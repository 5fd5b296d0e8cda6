"""Writing in the background, so that a slow disk does not hold up the GPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Writer:
    """Runs one write at a time, in order, while the caller continues.

    Use it as a context manager: on leaving, it waits for the current write, even after an error.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._last: Future[None] | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being written: `do` would not wait."""
        return self._last is None or self._last.done()

    def do(self, write: Callable[[], None]) -> None:
        """Start a write once the previous one is done; raises what the previous one raised."""
        self.wait()
        self._last = self._thread.submit(write)

    def wait(self) -> None:
        """Wait until everything is written; raises what the last write raised."""
        last, self._last = self._last, None
        if last is not None:
            last.result()
