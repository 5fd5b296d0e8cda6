"""Python imports this module at its start where this folder is on PYTHONPATH.

It kills the process at its n-th change to the run's files, or makes that change fail with an error
of the operating system. A change is a file opened for writing, renamed or deleted, or a folder made
or deleted.

    FAULT_SIDE  "parent" or "gpu": the side of the job that meets the fault
    FAULT_AT    number of the change, from 1
    FAULT_ROOT  folder whose files count
    FAULT_ERRNO the error's number; without it the process is killed
"""

import os
import signal
import sys

WRITES = ("w", "a", "x", "+")


class Changes:
    """Counts the changes of this process, and lets the chosen one fail."""

    def __init__(self, at: int, root: str, number: int | None) -> None:
        self.left = at
        self.root = root
        self.number = number
        self.pid = os.getpid()

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.left <= 0 or not self._is_change(event, arguments):
            return
        self.left -= 1
        if self.left == 0:
            if self.number is None:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(self.number, os.strerror(self.number or 0), str(arguments[0]))

    def _is_change(self, event: str, arguments: tuple[object, ...]) -> bool:
        if os.getpid() != self.pid or not str(arguments[:1]).count(self.root):
            return False
        if event == "open":
            mode, flags = arguments[1], arguments[2]
            if isinstance(mode, str):
                return any(sign in mode for sign in WRITES)
            return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")


def _side() -> str:
    words = sys.orig_argv
    is_gpu = "nlijob.gpu" in words
    if "nlijob.gpu.launcher" in words:  # it becomes a single process itself
        is_gpu = words[words.index("--num_processes") + 1] == "1"
    return "gpu" if is_gpu else "parent"


if os.environ.get("FAULT_SIDE") == _side():
    _number = os.environ.get("FAULT_ERRNO")
    sys.addaudithook(
        Changes(
            int(os.environ["FAULT_AT"]),
            os.environ["FAULT_ROOT"],
            int(_number) if _number else None,
        )
    )
