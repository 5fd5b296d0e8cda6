"""One attempt at a run: its number, and what the parent writes to timings.jsonl."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nlijob import records
from nlijob.errors import JobError
from nlijob.records.job import Timing, TimingKind
from nlijob.rundir import RunDir, append_to_log
from nlijob.stages import WHOLE_JOB

BEGUN = "begun"
"""Part of the whole job that says when an attempt began, and so that there was one."""


class Moment(NamedTuple):
    """A moment on both clocks of the machine."""

    wall_s: float
    """Seconds since 1970, for dates: somebody may set this clock while the job runs."""
    monotonic_s: float
    """For durations. All processes of the machine share this clock, and nobody sets it."""

    @classmethod
    def now(cls) -> Moment:
        """The present moment."""
        return cls(time.time(), time.monotonic())

    def age_s(self) -> float:
        """Seconds since this moment."""
        return time.monotonic() - self.monotonic_s


class Attempt:
    """The attempt that this process makes; it exists on disk from `begin` on."""

    def __init__(self, run: RunDir, started: Moment) -> None:
        self.number = 0
        self._run = run
        self._started = started
        self._has_ended = False

    def begin(self) -> None:
        """Give the attempt its number and record that it began, unless that was done before.

        An attempt that is killed later is not lost: the report says that there was one.
        """
        if self.number:
            return
        drop_torn_line(self._run.timings)
        self.number = next_attempt(self._run)
        self._add(WHOLE_JOB, self._started, 0.0, BEGUN, "other")

    def begin_afresh(self) -> None:
        """Begin as the first attempt, after the timings of other inputs were deleted."""
        self.number = 0
        self.begin()

    def fetched(self) -> None:
        """Record the time from the start of the command until all files are there."""
        self._add("fetch", self._started, self._started.age_s())

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record the time of a stage, even if it is interrupted."""
        started = Moment.now()
        try:
            yield
        finally:
            self._add(stage, started, started.age_s())

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Record the time of the whole attempt at the end of the block, however it ends."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError, JobError):  # the first error is the one to report
                self.end()
            raise
        self.end()

    def end(self) -> None:
        """Record the time of the whole attempt, unless it has not begun or is recorded."""
        if self.number and not self._has_ended:
            self._has_ended = True
            self._add(WHOLE_JOB, self._started, self._started.age_s())

    def _add(
        self,
        stage: str,
        started: Moment,
        duration_s: float,
        part: str = "",
        kind: TimingKind = "stage",
    ) -> None:
        timing = Timing(
            self.number,
            stage,
            part,
            started.wall_s,
            duration_s,
            kind=kind,
            started_monotonic_s=started.monotonic_s,
        )
        append_to_log(self._run.timings, timing)


def next_attempt(run: RunDir) -> int:
    """The number of the next attempt, from 1."""
    if not run.timings.exists():
        return 1
    return 1 + max((t.attempt for t in records.read_log(Timing, run.timings).records), default=0)


def drop_torn_line(path: Path) -> None:
    """Remove a last line that a crash left incomplete, so that lines can be appended."""
    if path.is_file():
        text = path.read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            with path.open("r+b") as handle:
                handle.truncate(whole)
