"""What the GPU side reports while it works: progress for the parent to show, and timings."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nlijob.attempt import Moment
from nlijob.records.job import Progress, Split, Timing, TimingKind
from nlijob.rundir import RunDir, append_record, append_to_log
from nlijob.stages import TRIAL_STAGES

INTERVAL_S = 0.2
"""Shortest time between two lines of progress."""


@dataclass(frozen=True)
class Part:
    """A part of a stage that is timed on its own."""

    name: str
    """As the page and the console say it, such as "epoch 2"."""
    kind: TimingKind = "other"
    epoch: int | None = None
    split: Split | None = None


WHOLE = Part("", "stage")
"""The stage as a whole."""


def optimizer_steps(epoch: int) -> Part:
    """All optimizer steps of an epoch."""
    return Part(f"epoch {epoch}", "optimizer steps", epoch, "train")


def remaining_steps(epoch: int, done: int) -> Part:
    """The optimizer steps of an epoch after the first `done`, as progress shows them."""
    return Part(f"epoch {epoch} from step {done + 1}") if done else optimizer_steps(epoch)


def scoring(split: Split, epoch: int | None = None) -> Part:
    """Scoring a split, after an epoch where one is given."""
    name = split if epoch is None else f"epoch {epoch} {split}"
    return Part(name, "scoring", epoch, split)


def checkpoint(epoch: int) -> Part:
    """Saving an epoch's checkpoint."""
    return Part(f"epoch {epoch} checkpoint", "checkpoint", epoch)


class Reporter:
    """Appends to progress.jsonl and timings.jsonl of one attempt."""

    def __init__(
        self, run: RunDir, attempt: int, is_silent: bool = False, process: int = 0
    ) -> None:
        self._run = run
        self._process = process
        self.is_silent = is_silent
        """Whether it writes nothing, as another process reports the same work."""
        self._attempt = attempt
        self._last = 0.0
        self.trial = ""
        """Name of the training in hand, if the run has several."""

    def say(self, stage: str, text: str) -> None:
        """A line about a stage."""
        self._show(Progress(stage, "", 0, 0, "", self._named(stage, text), self._process))

    def counter(self, stage: str, part: Part, total: int, unit: str) -> Callable[..., None]:
        """A function (done, note) that reports progress, at most once per `INTERVAL_S`."""

        def report(done: int, note: str = "") -> None:
            now = time.monotonic()
            if now - self._last >= INTERVAL_S or done == total:
                self._last = now
                name = self._named(stage, part.name)
                self._show(Progress(stage, name, done, total, unit, note, self._process))

        return report

    @contextlib.contextmanager
    def timed(
        self, stage: str, part: Part = WHOLE, examples: int | Callable[[], int] | None = None
    ) -> Iterator[None]:
        """Record the time spent in the block, even if it is interrupted.

        `examples`: how many rows the block processes; a function is called at its end.
        """
        started = Moment.now()
        try:
            yield
        finally:
            count = examples() if callable(examples) else examples
            self.add(stage, part, started, started.age_s(), count)

    def add(
        self,
        stage: str,
        part: Part,
        started: Moment,
        duration_s: float,
        examples: int | None = None,
    ) -> None:
        """Record a time that was measured elsewhere."""
        timing = Timing(
            self._attempt,
            stage,
            part.name,
            started.wall_s,
            duration_s,
            examples,
            part.kind,
            part.epoch,
            part.split,
            started.monotonic_s,
            self.trial if stage in TRIAL_STAGES else "",
        )
        if not self.is_silent:
            append_to_log(self._run.timings, timing)

    def _show(self, progress: Progress) -> None:
        if not self.is_silent:
            append_record(self._run.progress, progress)

    def _named(self, stage: str, text: str) -> str:
        """The text, after the name of the training where the stage is done for several."""
        return f"{self.trial}: {text}" if self.trial and stage in TRIAL_STAGES else text
