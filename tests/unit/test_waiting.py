"""Calls that may never return do not hold up those who wait for them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from nlijob.stopping import Stopped
from nlijob.waiting import GivenUpError, all_of, while_moving

LONG_S = 3600.0


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Set at the test's end, so that no thread stays behind."""
    event = threading.Event()
    yield event
    event.set()


def test_the_value_of_a_call_is_returned() -> None:
    assert while_moving(lambda moved: 5, LONG_S) == 5


def test_the_error_of_a_call_is_raised() -> None:
    def fail(_: Callable[[], None]) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        while_moving(fail, LONG_S)


def test_a_call_that_hangs_is_given_up(released: threading.Event) -> None:
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        while_moving(lambda _: released.wait(), 0.01)


def test_a_call_that_moves_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def work(moved: Callable[[], None]) -> str:
        nonlocal now
        for _ in range(10):
            now += 9.0
            moved()
        return "done"

    assert while_moving(work, 10.0) == "done"


def test_a_call_that_was_given_up_ends_at_its_next_sign_of_life() -> None:
    ended = threading.Event()
    go_on = threading.Event()

    def work(moved: Callable[[], None]) -> None:
        go_on.wait()
        try:
            moved()
        except GivenUpError:
            ended.set()

    with pytest.raises(TimeoutError):
        while_moving(work, 0.01)
    go_on.set()
    assert ended.wait(60)


def test_a_stop_signal_ends_the_wait(released: threading.Event) -> None:
    def stop(*_: object) -> None:
        raise Stopped("SIGUSR1")

    before = signal.signal(signal.SIGUSR1, stop)

    def work(_: Callable[[], None]) -> None:
        signal.raise_signal(signal.SIGUSR1)
        released.wait()

    try:
        with pytest.raises(Stopped):
            while_moving(work, LONG_S)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_all_tasks_are_done() -> None:
    done: list[int] = []
    all_of([partial(done.append, number) for number in range(20)], 3)
    assert sorted(done) == list(range(20))


def test_the_first_error_is_raised_though_another_task_hangs(released: threading.Event) -> None:
    def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        all_of([released.wait, fail], 2)


def test_no_task_is_done_without_tasks() -> None:
    all_of([], 3)
