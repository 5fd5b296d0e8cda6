"""Estimates of disk space, and what is said where it is lacking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nlijob.config import load_config
from nlijob.planning import needs
from nlijob.records.job import Split
from nlijob.records.planning import PlannedDisk
from tests.unit.planning.test_durations import ROWS, model


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
