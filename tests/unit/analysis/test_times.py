"""Time over the attempts of a run."""

from __future__ import annotations

import pytest

from nlijob.analysis.times import attempt_seconds, stage_times
from nlijob.records import Timing


def test_total_is_the_sum_of_the_attempts_without_the_pause() -> None:
    timings = [Timing(1, "job", "", 0, 100), Timing(2, "job", "", 5000, 50)]
    assert sum(attempt_seconds(timings).values()) == 150


def test_an_attempt_killed_hard_counts_from_first_start_to_last_end() -> None:
    timings = [Timing(1, "load", "", 10, 5), Timing(1, "train", "epoch 1", 20, 30)]
    assert sum(attempt_seconds(timings).values()) == 40


def test_no_timings_make_no_time() -> None:
    assert attempt_seconds([]) == {}
    assert stage_times([]) == ()


def test_an_interrupted_stage_counts_by_its_pieces() -> None:
    killed = [Timing(1, "train", "epoch 1", 0, 30), Timing(1, "train", "epoch 1 scoring", 30, 4)]
    resumed = [Timing(2, "train", "epoch 2", 99, 31), Timing(2, "train", "", 99, 40)]
    (train,) = stage_times([*killed, *resumed])
    assert train.duration_s == 34 + 40
    assert train.parts == {"epoch 1": 30, "epoch 1 scoring": 4, "epoch 2": 31}


def test_pieces_of_the_same_name_add_up_over_attempts() -> None:
    (train,) = stage_times(
        [Timing(1, "train", "epoch 1", 0, 3), Timing(2, "train", "epoch 1", 9, 4)]
    )
    assert train.parts == {"epoch 1": 7}


def test_stages_come_in_the_order_of_the_job_and_unknown_ones_last() -> None:
    names = ["report", "upload", "train", "fetch", "subset", "job"]
    stages = stage_times([Timing(1, name, "", 0, 1) for name in names])
    assert [stage.stage for stage in stages] == ["fetch", "subset", "train", "report", "upload"]


def test_speed_counts_only_pieces_that_go_through_examples() -> None:
    (train,) = stage_times(
        [
            Timing(1, "train", "epoch 1", 0, 10, 200),
            Timing(1, "train", "epoch 1 scoring", 10, 1, 500),
            Timing(1, "train", "", 0, 12),
        ]
    )
    assert train.examples_per_s == pytest.approx(20)


def test_speed_is_unknown_without_counted_examples() -> None:
    (load,) = stage_times([Timing(1, "load", "", 0, 10)])
    assert load.examples_per_s is None
