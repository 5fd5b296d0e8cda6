"""Two hosts on one machine: as processes on the loopback device, and in network namespaces."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nlijob import records
from nlijob.errors import ExitCode
from nlijob.records.job import Plan
from nlijob.rundir import RunDir, epoch_marker
from tests import jobs
from tests.hosts import Host, ended, loopback
from tests.in_process import Shown

pytestmark = pytest.mark.slow

SETTINGS = (*jobs.SMALL_DEMO, "--set", "machine.share=none")
"""One process trains and all score: the figures are those of one process, to the last digit."""


def figures(run: RunDir) -> list[bytes]:
    files = (run.baseline_predictions, run.evaluate_predictions, run.generations)
    return [file.read_bytes() for file in files]


def test_two_hosts_do_the_job_of_one(job: RunDir, tmp_path: Path) -> None:
    run, other, place = RunDir(tmp_path / "runs" / "job"), tmp_path / "elsewhere", loopback()
    hosts = [Host(0, place, run.root.parent, SETTINGS), Host(1, place, other, SETTINGS)]
    with ended(hosts):
        ends = [host.end() for host in hosts]
    assert [code for code, _ in ends] == [0, 0], ends
    assert figures(run) == figures(job)
    assert records.read(Plan, run.plan).processes == 2
    assert "Host 0 is at the stage" in ends[1][1]
    assert not other.exists()
    assert not list(hosts[1].temporary.glob("nlijob-*"))


def test_hosts_that_are_cut_off_from_each_other_end_and_one_goes_on_alone(
    job: RunDir, tmp_path: Path, nlijob_here: Callable[..., Shown]
) -> None:
    run = RunDir(tmp_path / "runs" / "job")
    with namespaces() as (names, cut):
        folders = run.root.parent, tmp_path / "elsewhere"
        hosts = [
            Host(rank, "10.77.0.1", folder, SETTINGS, ("ip", "netns", "exec", names[rank]))
            for rank, folder in enumerate(folders)
        ]
        with ended(hosts):
            epoch = run.marker(epoch_marker(1))
            jobs.wait_until(epoch.exists, hosts[0].process)
            cut()
            ends = [host.end() for host in hosts]
    for (code, said), other in zip(ends, ("host 1", "host 0"), strict=True):
        assert code == ExitCode.STOPPED, said
        assert f"error: stopped: {other} " in said
        assert "has not answered for 15 s" in said
    assert jobs.no_process_left(run)
    where = ("--runs-dir", run.root.parent, "--run-id", "job")
    assert nlijob_here("run", *where, *SETTINGS).code == 0
    assert figures(run) == figures(job)


@contextlib.contextmanager
def namespaces() -> Iterator[tuple[list[str], Callable[[], None]]]:
    """The names of two network namespaces that reach each other, and what cuts them off.

    The first has the address 10.77.0.1.
    """
    ends = [f"nl{os.getpid()}{side}" for side in "ab"]
    try:
        for end in ends:
            _ip("netns", "add", end)
        _ip("link", "add", ends[0], "netns", ends[0], "type", "veth", "peer", ends[1])
        _ip("link", "set", ends[1], "netns", ends[1])
        for number, end in enumerate(ends, 1):
            _ip("-n", end, "addr", "add", f"10.77.0.{number}/24", "dev", end)
            for device in ("lo", end):
                _ip("-n", end, "link", "set", device, "up")
        yield ends, lambda: _ip("-n", ends[1], "link", "set", ends[1], "down")
    finally:
        for end in ends:
            with contextlib.suppress(OSError, pytest.skip.Exception):
                _ip("netns", "del", end)


def _ip(*arguments: str) -> None:
    program = shutil.which("ip")
    if program is None:
        pytest.skip("iproute2 is not installed")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
