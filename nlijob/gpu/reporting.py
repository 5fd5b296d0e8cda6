"""What the GPU side tells while it works: progress for the parent to show, and timings."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from nlijob.records import Progress, Timing
from nlijob.rundir import RunDir, append_record

INTERVAL_S = 0.2


class Reporter:
    """Appends to progress.jsonl and timings.jsonl of one attempt."""

    def __init__(self, run: RunDir, attempt: int) -> None:
        self._run = run
        self._attempt = attempt
        self._last = 0.0

    def say(self, stage: str, text: str) -> None:
        """A line about a stage."""
        append_record(self._run.progress, Progress(stage, "", 0, 0, "", text))

    def counter(self, stage: str, part: str, total: int, unit: str) -> Callable[..., None]:
        """A function (done, note) that reports progress, a few times a second at most."""

        def report(done: int, note: str = "") -> None:
            now = time.monotonic()
            if now - self._last >= INTERVAL_S or done == total:
                self._last = now
                append_record(self._run.progress, Progress(stage, part, done, total, unit, note))

        return report

    @contextlib.contextmanager
    def timed(self, stage: str, part: str = "", examples: int | None = None) -> Iterator[None]:
        """Write how long a part took, cut short or not."""
        started_at, started = time.time(), time.monotonic()
        try:
            yield
        finally:
            self.add(stage, part, started_at, time.monotonic() - started, examples)

    def add(
        self, stage: str, part: str, started_at_s: float, duration_s: float, examples: int | None
    ) -> None:
        """Write a time measured elsewhere."""
        append_record(
            self._run.timings,
            Timing(self._attempt, stage, part, started_at_s, duration_s, examples),
        )
