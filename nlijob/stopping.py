"""A clean stop on SIGTERM, SIGHUP or Ctrl-C, in the parent and on the GPU side.

A signal raises `Stopped` in the main thread, wherever that is. No clean-up is needed: records are
written atomically, and a stage without its marker is not complete.

Python drops an exception that is raised within its own callbacks (finalizers, weak references), and
a library may swallow one. So `Stopped` is raised again until somebody calls `shutdown_begins`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from nlijob.errors import ExitCode

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
GRACE_S = 20.0
"""Time that the GPU side has to end. Upload and notice may then take 2 s each, so that the job ends
within 25 s; container schedulers commonly allow 30 s."""
RETRY_S = 0.2
"""Time after which `Stopped` is raised again if it was lost."""


class Stopped(BaseException):
    """A signal asked the job to end. Not an Exception, so that no library swallows it."""


def raise_on_signals() -> None:
    """Make a stop signal raise Stopped in the main thread from now on.

    SIGHUP stays ignored where it is: `nohup` asks for that.
    """
    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _raise_stopped)


@contextlib.contextmanager
def delayed_stop() -> Iterator[None]:
    """Delay stop signals until the end of a short block that must not be interrupted."""
    if threading.current_thread() is not threading.main_thread():  # signals do not interrupt it
        yield
        return
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (*STOP_SIGNALS, signal.SIGALRM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


def shutdown_begins() -> None:
    """`Stopped` has reached the code that ends the process, and is not raised again."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def stop_when_closed(descriptor: int, grace_s: float = GRACE_S) -> threading.Event:
    """Stop this process when a pipe is closed; returns an event set by the pipe's first byte.

    The parent holds the other end, so that this process never outlives it, even if the parent is
    killed. Before the event there is no work to lose, and the process exits at once. After it, the
    process is sent SIGTERM, and exits when `grace_s` have passed, whatever its shutdown waits for.

    The byte stays in the pipe: several processes share the pipe, and each has to see it.
    """
    first_byte = threading.Event()

    def wait() -> None:
        if _events(descriptor, select.POLLIN) & select.POLLIN:
            first_byte.set()
            _events(descriptor, 0)  # waits for the end, which is reported whatever is asked for
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(grace_s)
        os._exit(ExitCode.STOPPED)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
    return first_byte


def exit_where_stop_is_late(grace_s: float = GRACE_S) -> threading.Event:
    """Exit `grace_s` after a stop signal from now on, whatever the main thread waits for.

    Returns an event that is set when the signal comes. A process that waits for a GPU, or for
    another process that has gone, runs no handler of signals: Python calls it only once the main
    thread is back from the library.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    asked = threading.Event()

    def wait() -> None:
        while os.read(reading, 1)[0] not in STOP_SIGNALS:
            pass
        asked.set()
        time.sleep(grace_s)
        os._exit(ExitCode.STOPPED)

    threading.Thread(target=wait, name="late stop", daemon=True).start()
    return asked


def is_stopping() -> bool:
    """Whether a stop signal was met: from then on further ones are ignored."""
    return signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def is_open(pipe: int) -> bool:
    """Whether another process still holds the writing end of a pipe."""
    return not _events(pipe, 0, wait_ms=0) & select.POLLHUP


def _events(pipe: int, wanted: int, wait_ms: int | None = None) -> int:
    """What there is of a pipe: the wanted events, and POLLHUP where its writing end is closed.

    Waits until there is any; or for `wait_ms`, and then returns 0.
    """
    poll = select.poll()
    poll.register(pipe, wanted)
    return sum(events for _, events in poll.poll(wait_ms))


def _raise_stopped(number: int, frame: FrameType | None) -> None:
    for other in STOP_SIGNALS:  # a second signal must not interrupt the shutdown
        signal.signal(other, signal.SIG_IGN)
    name = signal.Signals(number).name

    def raise_again(number: int, frame: FrameType | None) -> None:
        if not _is_on_its_way(sys.exception()):
            raise Stopped(name)

    signal.signal(signal.SIGALRM, raise_again)
    signal.setitimer(signal.ITIMER_REAL, RETRY_S, RETRY_S)
    raise Stopped(name)


def _is_on_its_way(error: BaseException | None) -> bool:
    """Whether Stopped led to `error`, which is being handled."""
    while error is not None and not isinstance(error, Stopped):
        error = error.__context__
    return error is not None
