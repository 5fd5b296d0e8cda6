"""Time spent in each stage of a run, over all attempts.

All durations and moments come from monotonic clocks, which nobody sets. Moments are compared within
one attempt only, because the next one may run on another machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from nlijob.records.job import HardwareSample, Timing
from nlijob.records.outcome import PartTime, StageTime
from nlijob.stages import PHASES, WHOLE_JOB

ORDER = tuple(phase.name for phase in PHASES)
REPORT = "report"
"""Writing the report counts for nothing: it can be written any number of times."""


class AttemptTime(NamedTuple):
    """Seconds spent in one attempt."""

    seconds: float
    is_least: bool
    """Whether the attempt did not record its end, so that it took at least this long."""


def attempt_times(
    timings: Sequence[Timing], samples: Iterable[HardwareSample] = ()
) -> dict[int, AttemptTime]:
    """Time of each attempt that did some of the work; pauses between attempts are not counted.

    An attempt that did not record its end (it was killed, or is still running) counts up to the
    last moment that it recorded in `timings` or `samples`.
    """
    last_sample: dict[int, float] = {}
    for sample in samples:
        if sample.monotonic_s is not None:
            before = last_sample.get(sample.attempt, sample.monotonic_s)
            last_sample[sample.attempt] = max(before, sample.monotonic_s)
    return {
        attempt: _attempt_time(own, last_sample.get(attempt))
        for attempt, own in _by_attempt(timings).items()
        if not _only_rendered(own)
    }


def stage_times(
    timings: Sequence[Timing], attempts: Mapping[int, AttemptTime]
) -> tuple[StageTime, ...]:
    """Seconds of each stage over all attempts, in the order of the job; unknown stages last."""
    stages = {timing.stage for timing in timings} - {WHOLE_JOB, REPORT}
    known = [stage for stage in ORDER if stage in stages]
    return tuple(
        _stage_time(stage, timings, attempts) for stage in [*known, *sorted(stages - {*known})]
    )


def _by_attempt(timings: Iterable[Timing]) -> dict[int, list[Timing]]:
    """The timings of each attempt; attempts in order."""
    groups: dict[int, list[Timing]] = {}
    for timing in timings:
        groups.setdefault(timing.attempt, []).append(timing)
    return dict(sorted(groups.items()))


def _only_rendered(timings: Sequence[Timing]) -> bool:
    """Whether an attempt did nothing but write the report; only before format 4 it left timings."""
    stages = {timing.stage for timing in timings}
    is_older = any(timing.started_monotonic_s is None for timing in timings)
    return is_older and REPORT in stages and stages <= {WHOLE_JOB, "fetch", REPORT}


def _attempt_time(timings: Sequence[Timing], last_sample_s: float | None) -> AttemptTime:
    timings = [timing for timing in timings if timing.duration_s >= 0]
    whole = [t.duration_s for t in timings if t.stage == WHOLE_JOB and t.kind == "stage"]
    if whole:  # before format 4 there was another one, which had the time of the report in it
        return AttemptTime(min(whole), is_least=False)
    spans = [
        (t.started_monotonic_s, t.started_monotonic_s + t.duration_s)
        for t in timings
        if t.started_monotonic_s is not None and t.stage != REPORT
    ]
    if spans:
        first = min(start for start, _ in spans)
        ends = [end for _, end in spans] + ([] if last_sample_s is None else [last_sample_s])
        return AttemptTime(max(ends) - first, is_least=True)
    stages = {timing.stage for timing in timings} - {REPORT}
    known = [_stage_seconds([t for t in timings if t.stage == stage], None) for stage in stages]
    return AttemptTime(sum(seconds or 0.0 for seconds in known), is_least=True)


def _stage_time(
    stage: str, timings: Sequence[Timing], attempts: Mapping[int, AttemptTime]
) -> StageTime:
    own = [timing for timing in timings if timing.stage == stage]
    parts = _part_times([timing for timing in own if timing.kind != "stage"], attempts)
    return StageTime(
        stage=stage,
        duration_s=_sum(
            _stage_seconds([t for t in of_attempt if t.trial == trial], attempts.get(attempt))
            for attempt, of_attempt in _by_attempt(own).items()
            for trial in dict.fromkeys(timing.trial for timing in of_attempt)
        ),
        parts={part.name: part.duration_s for part in parts if part.duration_s is not None},
        examples_per_s=_examples_per_s(own),
        timed_parts=parts,
    )


def _part_times(
    timings: Iterable[Timing], attempts: Mapping[int, AttemptTime]
) -> tuple[PartTime, ...]:
    """Seconds of each part over all attempts, in the order in which they first ended."""
    groups: dict[str, list[Timing]] = {}
    for timing in timings:
        groups.setdefault(timing.part, []).append(timing)
    return tuple(
        PartTime(
            name,
            own[0].kind,
            own[0].epoch,
            own[0].split,
            _sum(_seconds(timing, attempts.get(timing.attempt)) for timing in own),
        )
        for name, own in groups.items()
    )


def _stage_seconds(timings: Sequence[Timing], attempt: AttemptTime | None) -> float | None:
    """Time of a stage in one attempt; if it was interrupted, the time of its complete parts."""
    whole = [timing for timing in timings if timing.kind == "stage"]
    return _sum(_seconds(timing, attempt) for timing in whole or timings)


def _seconds(timing: Timing, attempt: AttemptTime | None) -> float | None:
    """The duration of a timing, or None where it cannot be true.

    Before format 4 the start of the GPU side was timed with a clock that can be set: it may be
    negative, or longer than its whole attempt.
    """
    if timing.duration_s < 0:
        return None
    is_too_long = (
        timing.started_monotonic_s is None
        and attempt is not None
        and not attempt.is_least
        and timing.duration_s > attempt.seconds
    )
    return None if is_too_long else timing.duration_s


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum; None where a summand is unknown, because the sum would be too low."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _examples_per_s(timings: Sequence[Timing]) -> float | None:
    """Speed of the optimizer steps, or of scoring if there are none; None without either."""
    counted = [timing for timing in timings if timing.examples and timing.duration_s > 0]
    steps = [timing for timing in counted if timing.kind == "optimizer steps"]
    measured = steps or [timing for timing in counted if timing.kind == "scoring"]
    seconds = sum(timing.duration_s for timing in measured)
    return sum(timing.examples or 0 for timing in measured) / seconds if seconds else None
