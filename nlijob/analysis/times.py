"""Time spent in each stage of a run, over all attempts.

All durations and moments come from monotonic clocks, which nobody sets. Moments are compared within
one attempt only, because the next one may run on another machine.

Trainings may be done side by side. Time in which several of them were in a stage counts once, so
that no stage takes longer than the job.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from nlijob.records.job import HardwareSample, Timing
from nlijob.records.outcome import PartTime, StageTime
from nlijob.stages import PHASES, WHOLE_JOB

ORDER = tuple(phase.name for phase in PHASES)
SHORTEST_S = 1e-6
"""Two that overlap by less follow each other: moments are rounded."""
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


def outside_stages_s(
    timings: Sequence[Timing], attempts: Mapping[int, AttemptTime]
) -> float | None:
    """Time of the job in none of its stages; None unless stages overlap, or where not known."""
    stages = [timing for timing in timings if timing.stage not in (WHOLE_JOB, REPORT)]
    seconds, overlap = 0.0, False
    for number, own in _by_attempt(stages).items():
        intervals = [one for name in _names(own) for one in _intervals(name, own)]
        covered = _covered_s(intervals, attempts.get(number))
        if covered is None or any(one.started_monotonic_s is None for one in intervals):
            return None
        overlap = overlap or _most_at_once(intervals) > 1
        seconds += covered
    total_s = sum(attempt.seconds for attempt in attempts.values())
    return max(0.0, total_s - seconds) if overlap else None


def _names(timings: Iterable[Timing]) -> list[str]:
    """The stages of some timings, each once."""
    return list(dict.fromkeys(timing.stage for timing in timings))


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
    known = [_covered_s(_intervals(stage, timings), None) for stage in stages]
    return AttemptTime(sum(seconds or 0.0 for seconds in known), is_least=True)


def _stage_time(
    stage: str, timings: Sequence[Timing], attempts: Mapping[int, AttemptTime]
) -> StageTime:
    own = [timing for timing in timings if timing.stage == stage]
    parts = _part_times([timing for timing in own if timing.kind != "stage"], attempts)
    return StageTime(
        stage=stage,
        duration_s=_sum(
            _covered_s(_intervals(stage, of_attempt), attempts.get(attempt))
            for attempt, of_attempt in _by_attempt(own).items()
        ),
        parts={part.name: part.duration_s for part in parts if part.duration_s is not None},
        examples_per_s=_examples_per_s(own),
        timed_parts=parts,
        at_once=max(
            (_most_at_once(_at_work(of_attempt)) for of_attempt in _by_attempt(own).values()),
            default=1,
        ),
    )


def _intervals(stage: str, of_attempt: Sequence[Timing]) -> list[Timing]:
    """The timings that make up a stage in one attempt.

    They are the whole stage, once for each training; if it was interrupted, its complete parts.
    """
    own = [timing for timing in of_attempt if timing.stage == stage]
    found: list[Timing] = []
    for trial in dict.fromkeys(timing.trial for timing in own):
        of_trial = [timing for timing in own if timing.trial == trial]
        found += [timing for timing in of_trial if timing.kind == "stage"] or of_trial
    return found


def _at_work(timings: Iterable[Timing]) -> list[Timing]:
    """Steps and scoring, which one training never does at the same time."""
    return [timing for timing in timings if timing.kind in ("optimizer steps", "scoring")]


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
            _sum(
                _covered_s(some, attempts.get(number)) for number, some in _by_attempt(own).items()
            ),
        )
        for name, own in groups.items()
    )


def _covered_s(timings: Sequence[Timing], attempt: AttemptTime | None) -> float | None:
    """Seconds of one attempt in which at least one of these was going on; None where not known.

    At most those of the attempt: trainings on another host have the moments of another clock.
    """
    total_s = _sum(_seconds(timing, attempt) for timing in timings)
    if total_s is None:
        return None
    if _most_at_once(timings) == 1:
        several = len({timing.trial for timing in timings}) > 1
        is_known = attempt is not None and not attempt.is_least
        return min(total_s, attempt.seconds) if attempt and is_known and several else total_s
    covered_s, until_s = 0.0, -math.inf
    for start_s, end_s in sorted(map(_span, timings)):
        covered_s += max(0.0, end_s - max(start_s, until_s))
        until_s = max(until_s, end_s)
    return covered_s


def _most_at_once(timings: Iterable[Timing]) -> int:
    """Most of these that were going on at the same time; 1 where moments are not known."""
    known = [timing for timing in timings if timing.started_monotonic_s is not None]
    moments = [
        moment
        for start_s, end_s in map(_span, known)
        if end_s - start_s > SHORTEST_S
        for moment in ((start_s, 1), (end_s - SHORTEST_S, -1))
    ]
    return max(accumulate(change for _, change in sorted(moments)), default=1)


def _span(timing: Timing) -> tuple[float, float]:
    """Start and end of a timing on its machine's monotonic clock."""
    start_s = timing.started_monotonic_s or 0.0
    return start_s, start_s + timing.duration_s


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
    """Speed of the optimizer steps, or of scoring if there are none; None without either.

    It is that of all trainings together.
    """
    counted = [timing for timing in timings if timing.examples and timing.duration_s > 0]
    steps = [timing for timing in counted if timing.kind == "optimizer steps"]
    measured = steps or [timing for timing in counted if timing.kind == "scoring"]
    attempts = _by_attempt(measured).values()
    seconds = sum(_covered_s(of_attempt, None) or 0.0 for of_attempt in attempts)
    return sum(timing.examples or 0 for timing in measured) / seconds if seconds else None
