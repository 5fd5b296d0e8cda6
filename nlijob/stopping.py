"""Ending in good order on SIGTERM or Ctrl-C, the same way in the parent and on the GPU side.

A signal raises `Stopped` in the main thread wherever it is. Nothing needs tidying: records are
written whole or not at all, and a stage without its marker is not complete.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from nlijob.errors import ExitCode

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE_S = 20.0
"""Time the GPU side has to end. Upload and notice may take 2 s each after it, so that the job ends
in 25 s, below the 30 s that container schedulers commonly give it."""


class Stopped(BaseException):
    """A signal asked the job to end. No Exception, so that no library swallows it."""


def raise_on_signals() -> None:
    """From now on a stop signal raises Stopped in the main thread."""
    for number in STOP_SIGNALS:
        signal.signal(number, _raise_stopped)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Have a stop signal wait for the end of a short piece of work that must be done whole."""
    if threading.current_thread() is not threading.main_thread():  # it is not interrupted anyway
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in STOP_SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def stop_when_closed(descriptor: int, grace_s: float = GRACE_S) -> threading.Event:
    """Stop this process when `descriptor` reads end of file; what it reads first sets the event.

    The parent holds the other end, so however it ends, even killed, no orphan stays behind. Until
    the event there is nothing to lose, and the process ends at once; then it has `grace_s`, as
    Stopped may come to nothing: it is lost where it is raised in a callback of the interpreter's
    own, as those of imports are.
    """
    told = threading.Event()

    def wait() -> None:
        while os.read(descriptor, 1):
            told.set()
        if told.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(grace_s)
        os._exit(ExitCode.STOPPED)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
    return told


def _raise_stopped(number: int, frame: FrameType | None) -> None:
    for other in STOP_SIGNALS:  # a second signal must not interrupt the way out
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(signal.Signals(number).name)
