"""A disk that is full, or whose writes fail, ends a job with 74; with room again it goes on."""

from __future__ import annotations

import errno
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nlijob.errors import ExitCode
from nlijob.rundir import RunDir
from tests.faults import tiny

pytestmark = pytest.mark.faults

LARGE = "64m"
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for one file."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or _mount("-t", "tmpfs", "-o", "size=4k", "tmpfs", str(place)) != 0:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_ends_a_job_with_74_and_loses_nothing(
    small_disk: Path, finished: RunDir, expected: dict[str, Any], disk_seed: int
) -> None:
    whole = sum(path.stat().st_size for path in finished.root.rglob("*") if path.is_file())
    size = random.Random(disk_seed).randrange(8192, whole)
    assert _mount("-o", f"remount,size={size}", str(small_disk)) == 0
    code, output = tiny.call(*tiny.arguments(small_disk))
    assert code in (ExitCode.DISK, ExitCode.DONE), output
    assert "Traceback" not in output, output

    assert _mount("-o", f"remount,size={LARGE}", str(small_disk)) == 0
    code, output = tiny.call(*tiny.arguments(small_disk))
    assert code == 0, output
    tiny.assert_same_outcome(RunDir(small_disk / tiny.RUN_ID), expected)


def test_a_write_that_fails_ends_a_job_with_74_and_loses_nothing(
    tmp_path: Path, expected: dict[str, Any], disk_seed: int
) -> None:
    chance = random.Random(disk_seed)
    run = RunDir(tmp_path / tiny.RUN_ID)
    side, at = chance.choice(["parent", "gpu"]), chance.randrange(1, 60)
    env = tiny.with_hook(run, side, at, chance.choice(ERRORS))
    code, output = tiny.finish(tiny.start(tmp_path, env))
    assert code in (ExitCode.DISK, ExitCode.DONE), f"{side} {at}: {output}"
    assert "Traceback" not in output, output

    code, output = tiny.finish(tiny.start(tmp_path))
    assert code == 0, output
    tiny.assert_same_outcome(run, expected)


def _mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode
