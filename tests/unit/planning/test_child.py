"""The child process of `plan` and `doctor`: it never outlives its time or its parent's interest."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from nlijob.bytecode import PREFIX
from nlijob.errors import HardwareError, JobError
from nlijob.planning import child
from nlijob.rundir import RunDir

SLEEP = ("-n1", "import subprocess; subprocess.run(['sleep', '600'])")
"""Arguments of `timeit`, with which it starts another process and waits for it."""


def test_a_child_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    with child.child("timeit", *SLEEP, output=tmp_path / "log.txt") as process:
        while not (others := psutil.Process(process.pid).children()):
            time.sleep(0.01)
        assert process.poll() is None
    assert process.returncode is not None
    while any(other.is_running() and other.status() != "zombie" for other in others):
        time.sleep(0.01)  # a process that was killed takes a moment to end


def test_a_look_that_hangs_ends_with_the_code_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "LOOK_MODULE", "nlijob.gpu.trial")  # waits for a byte
    run = RunDir(tmp_path)
    with pytest.raises(HardwareError, match="was not done within 0 s"):
        child.look(run, 0.01)


def test_a_look_that_dies_is_told_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "LOOK_MODULE", "nlijob.nothing")
    with pytest.raises(JobError, match=r"No module named nlijob\.nothing"):
        child.look(RunDir(tmp_path))


def test_files_in_the_folder_do_not_shadow_modules(tmp_path: Path) -> None:
    (tmp_path / "timeit.py").write_text("raise SystemExit(9)", encoding="utf-8")
    with child.child("timeit", "-n1", "-r1", "1", output=tmp_path / "log.txt") as process:
        assert process.wait(60) == os.EX_OK


def test_its_compiled_modules_have_the_place_of_a_job_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "bytecode_environment", lambda _: {PREFIX: str(tmp_path)})
    prints = "import sys; print(sys.pycache_prefix)"
    with child.child("timeit", "-n1", "-r1", prints, output=tmp_path / "log.txt") as process:
        process.wait()
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").startswith(f"{tmp_path}\n")
