"""Time spent in each stage of a run, over all attempts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nlijob.records.job import Timing
from nlijob.records.outcome import PartTime, StageTime
from nlijob.stages import PHASES, WHOLE_JOB

ORDER = tuple(phase.name for phase in PHASES)


def attempt_numbers(timings: Iterable[Timing]) -> tuple[int, ...]:
    """The attempts that left a timing, in order."""
    return tuple(sorted({timing.attempt for timing in timings}))


def attempt_seconds(timings: Sequence[Timing]) -> dict[int, float]:
    """Seconds spent in each attempt; the pauses between attempts are not counted.

    An attempt without a timing of the whole job (killed, or still running) counts from its first
    start to its last end.
    """
    return {
        attempt: _attempt_seconds([timing for timing in timings if timing.attempt == attempt])
        for attempt in attempt_numbers(timings)
    }


def stage_times(timings: Sequence[Timing]) -> tuple[StageTime, ...]:
    """Seconds of each stage over all attempts, in the order of the job; unknown stages last."""
    stages = {timing.stage for timing in timings} - {WHOLE_JOB}
    known = [stage for stage in ORDER if stage in stages]
    return tuple(_stage_time(stage, timings) for stage in [*known, *sorted(stages - {*known})])


def _attempt_seconds(timings: Sequence[Timing]) -> float:
    whole = [timing.duration_s for timing in timings if timing.stage == WHOLE_JOB]
    if whole:
        return max(whole)  # one is written before the report is rendered, one after
    first = min(timing.started_at_s for timing in timings)
    return max(timing.started_at_s + timing.duration_s for timing in timings) - first


def _stage_time(stage: str, timings: Sequence[Timing]) -> StageTime:
    own = [timing for timing in timings if timing.stage == stage]
    parts = _part_times(timing for timing in own if timing.kind != "stage")
    return StageTime(
        stage=stage,
        duration_s=sum(
            _stage_seconds([timing for timing in own if timing.attempt == attempt])
            for attempt in attempt_numbers(own)
        ),
        parts={part.name: part.duration_s for part in parts},
        examples_per_s=_examples_per_s(own),
        timed_parts=parts,
    )


def _part_times(timings: Iterable[Timing]) -> tuple[PartTime, ...]:
    """Seconds of each part over all attempts, in the order in which they first ended."""
    groups: dict[str, list[Timing]] = {}
    for timing in timings:
        groups.setdefault(timing.part, []).append(timing)
    return tuple(
        PartTime(name, own[0].kind, own[0].epoch, own[0].split, sum(t.duration_s for t in own))
        for name, own in groups.items()
    )


def _stage_seconds(timings: Sequence[Timing]) -> float:
    """Time of a stage in one attempt; if it was interrupted, the time of its complete parts."""
    whole = [timing.duration_s for timing in timings if timing.kind == "stage"]
    return sum(whole or [timing.duration_s for timing in timings])


def _examples_per_s(timings: Sequence[Timing]) -> float | None:
    """Speed of the optimizer steps, or of scoring if there are none; None without either."""
    counted = [timing for timing in timings if timing.examples]
    steps = [timing for timing in counted if timing.kind == "optimizer steps"]
    measured = steps or [timing for timing in counted if timing.kind == "scoring"]
    seconds = sum(timing.duration_s for timing in measured)
    return sum(timing.examples or 0 for timing in measured) / seconds if seconds else None
