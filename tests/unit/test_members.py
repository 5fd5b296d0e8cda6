"""The processes of a GPU side are found whatever group, session or parent they have."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from nlijob.members import Members

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
LEAVE = f"""
import subprocess, sys
print(subprocess.Popen({SLEEP}, start_new_session=True, stdout=subprocess.DEVNULL).pid)
"""


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def launcher(members: Members, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        argv,
        env={**os.environ, **members.variables},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        members.kill(process)
        process.communicate()


def test_a_process_that_left_the_group_of_its_dead_launcher_is_found_and_killed() -> None:
    members = Members()
    with launcher(members, sys.executable, "-c", LEAVE) as process:
        assert process.stdout
        pid = int(process.stdout.read())
        process.wait()
        assert members.are_alive(process)
        members.kill(process)
        while members.are_alive(process):
            time.sleep(0.01)
        assert not is_running(pid)


def test_the_processes_of_another_gpu_side_are_left_alone() -> None:
    mine, others = Members(), Members()
    with launcher(others, *SLEEP) as process, launcher(mine, sys.executable, "-c", "") as own:
        own.wait()
        assert not mine.are_alive(own)
        mine.kill(own)
        assert process.poll() is None
        assert others.are_alive(process)
