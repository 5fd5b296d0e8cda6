"""Estimates of disk and memory, and what is said where they are lacking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nlijob.config import load_config
from nlijob.planning import needs
from nlijob.records.job import Split
from nlijob.records.planning import PlannedDisk, PlannedMemory
from tests.unit.planning.test_durations import ROWS, model

GIB = 2**30


def test_the_leanest_mode_of_phi_2_needs_what_was_measured() -> None:
    # 2.32 GiB at the peak with batch size 8 (docs/speed.md); with 2.25 GiB one row did not fit
    memory = needs.memory_need(load_config("phi2"), model(weights_bytes=2_047_344_640))
    assert 2.1 * GIB < memory.least_bytes < 2.4 * GIB
    assert memory.fastest_bytes > 8 * GIB


def test_gradient_checkpointing_asks_for_the_leanest_mode_alone() -> None:
    config = load_config("phi2", {"train.gradient_checkpointing": True})
    memory = needs.memory_need(config, model())
    assert memory.fastest_bytes == memory.least_bytes


def test_too_little_memory_ends_the_job_with_5() -> None:
    memory = PlannedMemory(3 * GIB, 9 * GIB, 2 * GIB)
    (obstacle,) = needs.memory_obstacles(memory)
    assert obstacle.exit_code == 5
    assert "needs about 3.00 GiB, and 2.00 GiB are free" in obstacle.message
    assert not list(needs.memory_obstacles(PlannedMemory(3 * GIB, 9 * GIB, 4 * GIB)))
    assert not list(needs.memory_obstacles(PlannedMemory(3 * GIB, 9 * GIB, None)))


def test_needs_on_one_disk_are_added_up(tmp_path: Path) -> None:
    on_disk = [PlannedDisk(str(tmp_path / name), 600, 1_000, name) for name in ("runs", "cache")]
    (obstacle,) = needs.disk_obstacles(on_disk)
    assert obstacle.exit_code == 74
    assert "about 1.2 kB needed, 1.0 kB free" in obstacle.message
    assert not list(needs.disk_obstacles(on_disk[:1]))


def test_every_epoch_needs_room_for_its_checkpoint(tmp_path: Path) -> None:
    def needed(epochs: int) -> int:
        config = load_config("phi2", {"train.epochs": epochs})
        run, *_ = needs.disk_needs(config, model(), ROWS, tmp_path, (0, 0))
        assert run.needed_bytes is not None
        return run.needed_bytes

    assert needed(6) - needed(5) > 4 * model().trainable_parameters


@pytest.mark.parametrize(
    ("downloads", "expected"), [((0, 0), None), ((5, 7), 12), ((5, None), "not known")]
)
def test_downloads_need_room_in_the_cache(
    tmp_path: Path, downloads: tuple[int | None, ...], expected: Any
) -> None:
    rows: dict[Split, int | None] = dict(ROWS)
    found = needs.disk_needs(load_config("phi2"), model(), rows, tmp_path, downloads)
    of_cache = [disk for disk in found if disk.purpose == "downloads"]
    if expected is None:
        assert not of_cache
    else:
        assert of_cache[0].needed_bytes == (None if expected == "not known" else expected)
