"""Times of a run over all its attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlijob.analysis.times import attempt_times, outside_stages_s, stage_times
from nlijob.records.job import HardwareSample, Timing, TimingKind
from nlijob.records.outcome import StageTime


def steps(
    epoch: int,
    started_at_s: float,
    duration_s: float,
    kind: TimingKind = "optimizer steps",
    examples: int | None = None,
) -> Timing:
    """Work of an epoch in the attempt of its number."""
    name = f"{kind} {epoch}"
    return Timing(epoch, "train", name, started_at_s, duration_s, examples, kind, epoch)


def of_clock(
    attempt: int, stage: str, start_s: float, seconds: float, kind: TimingKind = "stage"
) -> Timing:
    """A timing with the monotonic clock, whose wall clock makes no sense at all."""
    return Timing(
        attempt,
        stage,
        "" if kind == "stage" else kind,
        1e9 - 1e6 * start_s,
        seconds,
        kind=kind,
        started_monotonic_s=start_s,
    )


def sampled(attempt: int, moment_s: float) -> HardwareSample:
    return HardwareSample(attempt, 0.0, "train", None, None, None, (), monotonic_s=moment_s)


def total_s(timings: list[Timing], samples: Sequence[HardwareSample] = ()) -> float:
    return sum(time.seconds for time in attempt_times(timings, samples).values())


def stages_of(timings: list[Timing]) -> tuple[StageTime, ...]:
    return stage_times(timings, attempt_times(timings))


# ---------------------------------------------------------------- the whole job


def test_total_is_the_sum_of_the_attempts_without_the_pause() -> None:
    timings = [Timing(1, "job", "", 0, 100), Timing(2, "job", "", 5000, 50)]
    assert attempt_times(timings) == {1: (100, False), 2: (50, False)}


def test_an_attempt_killed_hard_counts_up_to_the_last_end_of_a_part() -> None:
    killed = [of_clock(1, "load", 10, 5), of_clock(1, "train", 20, 30, "optimizer steps")]
    assert attempt_times(killed) == {1: (40, True)}


def test_an_attempt_killed_hard_counts_up_to_its_last_sample() -> None:
    killed = [of_clock(1, "job", 8, 0, "other"), of_clock(1, "fetch", 8, 2)]
    samples = [sampled(1, 61), sampled(1, 60), sampled(2, 900)]
    assert attempt_times(killed, samples) == {1: (53, True)}


def test_an_attempt_killed_before_it_did_anything_is_counted_as_one() -> None:
    killed = of_clock(1, "job", 700, 0, "other")
    resumed = [of_clock(2, "job", 3, 0, "other"), of_clock(2, "job", 3, 20)]
    assert attempt_times([killed, *resumed]) == {1: (0, True), 2: (20, False)}


def test_moments_of_two_machines_are_never_compared() -> None:
    timings = [of_clock(1, "fetch", 1e6, 5), of_clock(2, "fetch", 10, 5), of_clock(2, "job", 10, 7)]
    assert total_s(timings, [sampled(1, 1e6 + 6), sampled(2, 12)]) == 6 + 7


def test_writing_the_report_is_no_part_of_the_job() -> None:
    timings = [of_clock(1, "fetch", 0, 2), of_clock(1, "job", 0, 30), of_clock(1, "report", 30, 4)]
    assert total_s(timings) == 30
    assert [stage.stage for stage in stages_of(timings)] == ["fetch"]


def test_the_time_up_to_the_report_counts_where_an_older_run_also_recorded_a_later_one() -> None:
    before, after = Timing(1, "job", "", 0, 30), Timing(1, "job", "", 0, 34)
    report = Timing(1, "report", "", 30, 4)
    assert total_s([Timing(1, "train", "", 5, 20), before, report, after]) == 30


def test_attempts_of_an_older_run_that_only_rendered_count_for_nothing() -> None:
    worked = [Timing(1, "train", "", 0, 20), Timing(1, "job", "", 0, 30)]
    rendered = [Timing(2, name, "", 90, 3) for name in ("fetch", "job", "report", "job")]
    assert attempt_times([*worked, *rendered]) == {1: (30, False)}


def test_an_older_attempt_killed_hard_counts_by_its_stages_alone() -> None:
    # its moments are of a clock that may have been set
    killed = [Timing(1, "load", "", 9000, 5), steps(1, 20, 30)]
    assert attempt_times(killed) == {1: (35, True)}


def test_no_timings_make_no_time() -> None:
    assert attempt_times([]) == {}
    assert stages_of([]) == ()


# ---------------------------------------------------------------- clocks that were set


@pytest.mark.parametrize("seconds", [-3584.2, 7300.0])
def test_a_start_that_a_set_clock_made_impossible_was_not_measured(seconds: float) -> None:
    older = [
        Timing(1, "start", "", 0, seconds),
        Timing(1, "start", "start, from its launch on", 0, seconds, kind="other"),
        Timing(1, "train", "", 0, 20),
        Timing(1, "job", "", 0, 60),
    ]
    start, train = stages_of(older)
    assert (start.duration_s, start.parts) == (None, {})
    assert [part.duration_s for part in start.timed_parts] == [None]
    assert train.duration_s == 20


@st.composite
def _attempt(draw: st.DrawFn, number: int) -> list[Timing]:
    """An attempt of some stages, one after another, with wall clocks in any order."""
    clock = draw(st.floats(0, 1e7))
    seconds = st.floats(0, 1e4)
    timings = [Timing(number, "job", "begun", 0, 0, kind="other", started_monotonic_s=clock)]
    begun = clock
    for stage in draw(st.lists(st.sampled_from(["fetch", "load", "train", "evaluate"]))):
        started, parts = clock, draw(st.lists(seconds, max_size=3))
        for index, own in enumerate(parts):
            wall_s = draw(st.floats(-1e10, 1e10))
            name = f"part {index}"
            timings.append(
                Timing(number, stage, name, wall_s, own, None, "other", None, None, clock)
            )
            clock += own
        if draw(st.booleans()):
            timings.append(
                Timing(number, stage, "", 0, clock - started, started_monotonic_s=started)
            )
    if draw(st.booleans()):
        whole_s = clock - begun + draw(seconds)
        timings.append(Timing(number, "job", "", 0, whole_s, started_monotonic_s=begun))
    return draw(st.permutations(timings))


@given(_attempt(1), _attempt(2))
def test_stages_never_take_longer_than_the_job_and_nothing_is_negative(
    first: list[Timing], second: list[Timing]
) -> None:
    stages = stages_of([*first, *second])
    seconds = [stage.duration_s for stage in stages]
    known = [one for one in seconds if one is not None]
    assert len(known) == len(seconds)
    assert all(one >= 0 for one in known)
    assert sum(known) <= total_s([*first, *second]) * (1 + 1e-9) + 1e-6  # rounding of large clocks


# ---------------------------------------------------------------- stages


def test_an_interrupted_stage_counts_by_its_parts() -> None:
    killed = [steps(1, 0, 30), steps(1, 30, 4, "scoring")]
    resumed = [steps(2, 99, 31), Timing(2, "train", "", 99, 40)]
    (train,) = stages_of([*killed, *resumed])
    assert train.duration_s == 34 + 40
    assert train.parts == {"optimizer steps 1": 30, "scoring 1": 4, "optimizer steps 2": 31}
    assert [(part.kind, part.epoch) for part in train.timed_parts] == [
        ("optimizer steps", 1),
        ("scoring", 1),
        ("optimizer steps", 2),
    ]


def test_parts_of_the_same_name_add_up_over_attempts() -> None:
    (train,) = stages_of([steps(1, 0, 3), replace(steps(1, 9, 4), attempt=2)])
    assert train.parts == {"optimizer steps 1": 7}
    assert [part.duration_s for part in train.timed_parts] == [7]


def test_stages_come_in_the_order_of_the_job_and_unknown_ones_last() -> None:
    names = ["evaluate", "upload", "train", "fetch", "subset", "job"]
    stages = stages_of([Timing(1, name, "", 0, 1) for name in names])
    assert [stage.stage for stage in stages] == ["fetch", "subset", "train", "evaluate", "upload"]


def test_speed_of_training_counts_optimizer_steps_alone() -> None:
    (train,) = stages_of(
        [
            steps(1, 0, 10, examples=200),
            steps(1, 10, 1, "scoring", examples=500),
            Timing(1, "train", "", 0, 12),
        ]
    )
    assert train.examples_per_s == pytest.approx(20)


def test_speed_of_scoring_counts_whole_splits_alone() -> None:
    (baseline,) = stages_of(
        [
            Timing(1, "baseline", "test", 0, 2, 100, "scoring", None, "test"),
            Timing(1, "baseline", "few-shot test", 2, 50, 100, "other", None, "test"),
        ]
    )
    assert baseline.examples_per_s == 50


def test_speed_is_unknown_without_counted_examples() -> None:
    (load,) = stages_of([Timing(1, "load", "", 0, 10)])
    assert load.examples_per_s is None


# ---------------------------------------------------------------- trainings side by side


def training(seed: int, start_s: float, attempt: int = 1, is_whole: bool = True) -> list[Timing]:
    """A training that takes 40 s: 30 s of steps and 9 s of scoring, and then 6 s of evaluation."""

    def of(stage: str, part: str, kind: TimingKind, after_s: float, seconds: float) -> Timing:
        timing = of_clock(attempt, stage, start_s + after_s, seconds, kind)
        examples = {"optimizer steps": 600, "scoring": 90}.get(kind)
        return replace(timing, part=part, trial=f"seed-{seed}", examples=examples)

    parts = [
        of("train", "epoch 1", "optimizer steps", 0, 30),
        of("train", "epoch 1 test", "scoring", 30, 9),
    ]
    rest = [of("train", "", "stage", 0, 40), of("evaluate", "", "stage", 40, 6)]
    return [*parts, *(rest if is_whole else [])]


def four_on_two() -> list[Timing]:
    """Four trainings of 46 s on two GPUs, in an attempt of 110 s; lines come as they end."""
    starts = {1: 10.0, 2: 10.5, 3: 56.0, 4: 56.5}
    timings = [timing for seed, start_s in starts.items() for timing in training(seed, start_s)]
    whole = of_clock(1, "job", 0, 110)
    return sorted([*timings, whole], key=lambda one: (one.started_monotonic_s or 0, one.duration_s))


def test_time_in_which_trainings_are_side_by_side_counts_once() -> None:
    train, evaluate = stages_of(four_on_two())
    assert train.duration_s == pytest.approx(2 * 40.5)
    assert evaluate.duration_s == pytest.approx(2 * 6.5)
    assert (train.at_once, evaluate.at_once) == (2, 1)  # of evaluate no scoring is recorded here
    assert total_s(four_on_two()) == 110


def test_the_speed_of_trainings_side_by_side_is_that_of_all_together() -> None:
    train, _ = stages_of(four_on_two())
    assert train.examples_per_s == pytest.approx(4 * 600 / (2 * 30.5))
    assert train.parts == pytest.approx({"epoch 1": 2 * 30.5, "epoch 1 test": 2 * 9.5})


def test_the_time_outside_the_stages_is_what_none_of_them_covers() -> None:
    timings = four_on_two()
    # 10 to 56.5, from 56 on to 102.5
    assert outside_stages_s(timings, attempt_times(timings)) == pytest.approx(110 - 92.5)


def test_the_time_outside_stages_that_follow_each_other_is_what_they_leave() -> None:
    timings = [*training(1, 10), *training(2, 56), of_clock(1, "job", 0, 110)]
    assert outside_stages_s(timings, attempt_times(timings)) is None
    train, evaluate = stages_of(timings)
    assert (train.duration_s, evaluate.duration_s, train.at_once) == (80, 12, 1)


def test_trainings_that_were_interrupted_side_by_side_count_by_their_parts() -> None:
    killed = [*training(1, 10, is_whole=False), *training(2, 10.5, is_whole=False)]
    resumed = [*training(1, 3, 2), *training(2, 3, 2)]
    train, evaluate = stages_of([*killed, *resumed])
    assert train.duration_s == pytest.approx(39.5 + 40)
    assert evaluate.duration_s == 6


def test_trainings_on_hosts_with_other_clocks_take_no_longer_than_the_job() -> None:
    timings = [*training(1, 10), *training(2, 9e6), of_clock(1, "job", 0, 60)]
    assert [stage.duration_s for stage in stages_of(timings)] == [60, 12]


def test_moments_of_two_attempts_are_not_side_by_side() -> None:
    first, second = training(1, 10), training(2, 10, attempt=2)
    train, _ = stages_of([*first, *second])
    assert (train.duration_s, train.at_once) == (80, 1)


@given(
    st.lists(st.tuples(st.floats(0, 90), st.floats(0, 20), st.integers(0, 5)), max_size=8),
    st.integers(0, 3),
)
def test_no_stage_takes_longer_than_its_job(
    spans: list[tuple[float, float, int]], others: int
) -> None:
    timings = [
        replace(
            of_clock(1, "train" if trial > others else "evaluate", start_s, seconds),
            trial=f"seed-{trial}",
        )
        for start_s, seconds, trial in spans
    ]
    whole = of_clock(1, "job", 0, 110)
    for stage in stages_of([*timings, whole]):
        assert stage.duration_s is not None
        assert stage.duration_s <= 110 + 1e-4
