"""Two hosts on one machine: the command twice, each with what a host of its own would have."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests import jobs

LIMIT_S = "120"
"""Longest time that the hosts of a test wait for each other, in seconds."""


class Host:
    """The command on one of two hosts."""

    def __init__(
        self,
        rank: int,
        rendezvous: str,
        runs: Path,
        settings: Sequence[str],
        within: Sequence[str] = (),
        **variables: str,
    ) -> None:
        """`within`: what to put in front of the command."""
        where = ("--runs-dir", runs, "--run-id", "job", "--rendezvous-timeout", LIMIT_S)
        hosts = ("--hosts", "2", "--host-rank", str(rank), "--rendezvous", rendezvous)
        self.temporary = runs.parent / f"temporary-{rank}"
        self.temporary.mkdir()
        self.process = subprocess.Popen(
            [*within, *jobs.command("run", *where, *hosts, *settings)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=jobs.environment(TMPDIR=str(self.temporary), **variables),
        )

    def end(self) -> tuple[int, str]:
        """Exit code, and what was printed to standard error."""
        said = self.process.communicate(timeout=jobs.LIMIT_S)[1]
        return self.process.returncode, said


@contextlib.contextmanager
def ended(hosts: Sequence[Host]) -> Iterator[None]:
    """None of the hosts' commands outlives the block."""
    try:
        yield
    finally:
        for host in hosts:
            host.process.kill()
            host.process.communicate()


def loopback() -> str:
    """A rendezvous on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return f"127.0.0.1:{found.getsockname()[1]}"
