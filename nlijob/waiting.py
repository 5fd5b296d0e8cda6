"""Waiting for calls that may never return, such as requests to a server that stays silent."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from nlijob.stopping import delayed_stop

T = TypeVar("T")

POLL_S = 0.1


class GivenUpError(Exception):
    """Raised in a call for which nobody waits any longer."""


def while_moving(call: Callable[[Callable[[], None]], T], limit_s: float) -> T:
    """The value of `call(moved)`, which is given up once it has not called `moved` for `limit_s`.

    The call runs in a thread. So a stop signal ends the wait at once, whatever the call waits for,
    and a thread that hangs does not keep the process alive. After it was given up, `moved` raises
    GivenUpError, so that the call ends at its next sign of life. Raises TimeoutError, or what the
    call raises.
    """
    answer: Future[T] = Future()
    given_up = threading.Event()
    last = time.monotonic()

    def moved() -> None:
        nonlocal last
        if given_up.is_set():
            raise GivenUpError
        last = time.monotonic()

    def ask() -> None:
        try:
            answer.set_result(call(moved))
        except BaseException as error:
            answer.set_exception(error)

    thread = threading.Thread(target=ask, name="waited for", daemon=True)
    thread.start()
    try:
        while not answer.done():
            left_s = last + limit_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"no answer within {limit_s:g} s")
            thread.join(min(POLL_S, left_s))
    finally:
        given_up.set()
    return answer.result()


def all_of(tasks: Sequence[Callable[[], object]], workers: int) -> None:
    """Do all tasks in up to `workers` threads at a time. Raises the first error at once.

    No task is begun after an error; those that have begun are not waited for.
    """
    left = iter(tasks)
    lock = threading.Lock()
    failed = threading.Event()
    # Waited for by the caller: a stop signal's exception that is raised within a lock of the
    # module threading, or a ThreadPoolExecutor, can leave it held.
    ends: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            while not failed.is_set():
                with lock:
                    task = next(left, None)
                if task is None:
                    break
                task()
        except BaseException as error:
            failed.set()
            ends.put(error)
        else:
            ends.put(None)

    count = min(workers, len(tasks))
    with delayed_stop():
        for _ in range(count):
            threading.Thread(target=work, name="task", daemon=True).start()
    for _ in range(count):
        if error := ends.get():
            raise error
