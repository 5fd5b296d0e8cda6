"""Times of a run over all its attempts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nlijob.analysis.times import attempt_seconds, stage_times
from nlijob.records.job import Timing, TimingKind


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


def test_total_is_the_sum_of_the_attempts_without_the_pause() -> None:
    timings = [Timing(1, "job", "", 0, 100), Timing(2, "job", "", 5000, 50)]
    assert sum(attempt_seconds(timings).values()) == 150


def test_an_attempt_killed_hard_counts_from_first_start_to_last_end() -> None:
    timings = [
        Timing(1, "load", "", 10, 5),
        Timing(1, "train", "epoch 1", 20, 30, kind="optimizer steps"),
    ]
    assert sum(attempt_seconds(timings).values()) == 40


def test_no_timings_make_no_time() -> None:
    assert attempt_seconds([]) == {}
    assert stage_times([]) == ()


def test_an_interrupted_stage_counts_by_its_parts() -> None:
    killed = [steps(1, 0, 30), steps(1, 30, 4, "scoring")]
    resumed = [steps(2, 99, 31), Timing(2, "train", "", 99, 40)]
    (train,) = stage_times([*killed, *resumed])
    assert train.duration_s == 34 + 40
    assert train.parts == {"optimizer steps 1": 30, "scoring 1": 4, "optimizer steps 2": 31}
    assert [(part.kind, part.epoch) for part in train.timed_parts] == [
        ("optimizer steps", 1),
        ("scoring", 1),
        ("optimizer steps", 2),
    ]


def test_parts_of_the_same_name_add_up_over_attempts() -> None:
    (train,) = stage_times([steps(1, 0, 3), replace(steps(1, 9, 4), attempt=2)])
    assert train.parts == {"optimizer steps 1": 7}
    assert [part.duration_s for part in train.timed_parts] == [7]


def test_stages_come_in_the_order_of_the_job_and_unknown_ones_last() -> None:
    names = ["report", "upload", "train", "fetch", "subset", "job"]
    stages = stage_times([Timing(1, name, "", 0, 1) for name in names])
    assert [stage.stage for stage in stages] == ["fetch", "subset", "train", "report", "upload"]


def test_speed_of_training_counts_optimizer_steps_alone() -> None:
    (train,) = stage_times(
        [
            steps(1, 0, 10, examples=200),
            steps(1, 10, 1, "scoring", examples=500),
            Timing(1, "train", "", 0, 12),
        ]
    )
    assert train.examples_per_s == pytest.approx(20)


def test_speed_of_scoring_counts_whole_splits_alone() -> None:
    (baseline,) = stage_times(
        [
            Timing(1, "baseline", "test", 0, 2, 100, "scoring", None, "test"),
            Timing(1, "baseline", "few-shot test", 2, 50, 100, "other", None, "test"),
        ]
    )
    assert baseline.examples_per_s == 50


def test_speed_is_unknown_without_counted_examples() -> None:
    (load,) = stage_times([Timing(1, "load", "", 0, 10)])
    assert load.examples_per_s is None
