"""The processes of one GPU side: whether any of them lives, and their end.

They are in the process group of the launcher; but torchrun gives each process that it starts a
session, and so a group, of its own. Those are known by a variable that all of them inherit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator

import psutil

VARIABLE = "GPU_SIDE_OF_NLIJOB"
"""Environment variable that all processes of one GPU side have, with a value of their own."""


class Members:
    """The processes that were started with `variables`, by a launcher that heads their group."""

    def __init__(self) -> None:
        self.variables = {VARIABLE: uuid.uuid4().hex}
        """What to add to the environment of the launcher."""

    def are_alive(self, launcher: subprocess.Popen[bytes]) -> bool:
        """Whether any of the processes lives; zombies do not count."""
        launcher.poll()
        with contextlib.suppress(ChildProcessError):  # as PID 1 this process must reap orphans
            os.waitpid(-launcher.pid, os.WNOHANG)
        # If PID 1 is another process that reaps no orphans, zombies stay in the group forever.
        try:
            return any(True for _ in self._living(launcher.pid))
        except (OSError, psutil.Error):  # without /proc the kernel's answer stands
            return _has_group(launcher.pid)

    def kill(self, launcher: subprocess.Popen[bytes]) -> None:
        """Kill all the processes, even those that are held up by SIGSTOP."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
        with contextlib.suppress(OSError, psutil.Error):
            for process in self._living(launcher.pid):
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def _living(self, group: int) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                is_one = os.getpgid(process.pid) == group or self._is_marked(process)
                if is_one and not _is_zombie(process):
                    yield process

    def _is_marked(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(VARIABLE) == self.variables[VARIABLE]
        except psutil.AccessDenied:  # it is another user's
            return False


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:  # whether it is one is not told
        return False


def _has_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
