"""Where a run's time went, over all its attempts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from nlijob.records import StageTime, Timing

SPEED_PARTS = re.compile(r"epoch \d+|validation|test")
"""Pieces that only go through examples: optimizer steps, or scoring a split."""
STAGE_ORDER = (
    "fetch",
    "subset",
    "start",
    "encode",
    "load",
    "plan",
    "baseline",
    "train",
    "select",
    "evaluate",
    "report",
)


def attempt_numbers(timings: Iterable[Timing]) -> tuple[int, ...]:
    """The attempts that left a timing, in order."""
    return tuple(sorted({timing.attempt for timing in timings}))


def attempt_seconds(timings: Sequence[Timing]) -> dict[int, float]:
    """Seconds spent in each attempt; the pauses between attempts are not counted.

    An attempt without a "job" record (killed, or still going on) counts from its first start to
    its last end.
    """
    return {
        attempt: _attempt_seconds([timing for timing in timings if timing.attempt == attempt])
        for attempt in attempt_numbers(timings)
    }


def stage_times(timings: Sequence[Timing]) -> tuple[StageTime, ...]:
    """Each stage's seconds over all attempts, in the order of the job."""
    stages = {timing.stage for timing in timings} - {"job"}
    known = [stage for stage in STAGE_ORDER if stage in stages]
    return tuple(_stage_time(stage, timings) for stage in [*known, *sorted(stages - {*known})])


def _attempt_seconds(timings: Sequence[Timing]) -> float:
    whole = [timing.duration_s for timing in timings if timing.stage == "job"]
    if whole:
        return max(whole)  # one is written before the report is rendered, one after
    first = min(timing.started_at_s for timing in timings)
    return max(timing.started_at_s + timing.duration_s for timing in timings) - first


def _stage_time(stage: str, timings: Sequence[Timing]) -> StageTime:
    own = [timing for timing in timings if timing.stage == stage]
    parts: dict[str, float] = {}
    for timing in own:
        if timing.part:
            parts[timing.part] = parts.get(timing.part, 0.0) + timing.duration_s
    return StageTime(
        stage=stage,
        duration_s=sum(
            _stage_seconds([timing for timing in own if timing.attempt == attempt])
            for attempt in attempt_numbers(own)
        ),
        parts=parts,
        examples_per_s=_examples_per_s(own),
    )


def _stage_seconds(timings: Sequence[Timing]) -> float:
    """A stage in one attempt: as a whole, or, where it was interrupted, the pieces it left."""
    whole = [timing.duration_s for timing in timings if not timing.part]
    return sum(whole or [timing.duration_s for timing in timings])


def _examples_per_s(timings: Iterable[Timing]) -> float | None:
    """Speed of training or scoring, from the pieces that do nothing else; None without any."""
    measured = [t for t in timings if t.examples and SPEED_PARTS.fullmatch(t.part)]
    seconds = sum(timing.duration_s for timing in measured)
    return sum(timing.examples or 0 for timing in measured) / seconds if seconds else None
