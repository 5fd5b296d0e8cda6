"""A source of figures that fails or hangs is told once, and asked less and less often."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from nlijob.hardware.reader import LIMIT_S, LONGEST_REST_S, Reader, ReaderError

PATIENCE_S = 60.0


class Clock:
    """Stands in for `time.monotonic`, and moves when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """What a hanging source waits for."""
    event = threading.Event()
    yield event
    event.set()


def answers(reader: Reader[int], clock: Clock) -> int | None:
    reader.ask()
    return reader.take(clock.now_s + PATIENCE_S)


def failing(error: Exception) -> Callable[[], int]:
    def read() -> int:
        raise error

    return read


def test_an_answer_is_taken_once(clock: Clock) -> None:
    reader = Reader("a source", lambda: 7)
    assert answers(reader, clock) == 7
    assert reader.take(clock.now_s) is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ReaderError("out of order"), "out of order"), (KeyError("x"), "KeyError: 'x'")],
)
def test_a_failure_is_told_once(clock: Clock, error: Exception, reason: str) -> None:
    reader = Reader("a source", failing(error))
    assert answers(reader, clock) is None
    assert reader.told() == (f"a source: {reason}",)
    clock.now_s += LONGEST_REST_S
    assert answers(reader, clock) is None
    assert reader.told() == ()


def test_a_source_that_keeps_failing_is_asked_less_and_less_often(clock: Clock) -> None:
    asked = []

    def read() -> int:
        asked.append(clock.now_s)
        raise ReaderError("still out of order")

    reader = Reader("a source", read)
    for _ in range(3600):
        answers(reader, clock)
        clock.now_s += 1
    assert 10 < len(asked) < 25
    assert asked[-1] - asked[-2] == pytest.approx(LONGEST_REST_S, abs=1)


def test_a_source_that_recovers_is_asked_each_time(clock: Clock) -> None:
    values: Iterator[int | ReaderError] = iter([ReaderError("once"), 1, 2])

    def read() -> int:
        value = next(values)
        if isinstance(value, ReaderError):
            raise value
        return value

    reader = Reader("a source", read)
    assert answers(reader, clock) is None
    clock.now_s += 2
    assert [answers(reader, clock), answers(reader, clock)] == [1, 2]


def test_a_source_that_hangs_is_not_asked_again(clock: Clock, held: threading.Event) -> None:
    asked: list[None] = []

    def read() -> int:
        asked.append(None)
        held.wait()
        return 1

    reader = Reader("a source", read)
    for _ in range(5):
        reader.ask()
        assert reader.take(clock.now_s) is None
    assert len(asked) == 1


def test_a_late_answer_is_taken_with_the_next_question(clock: Clock, held: threading.Event) -> None:
    done = threading.Event()

    def read() -> int:
        held.wait()
        done.set()
        return 1

    reader = Reader("a source", read)
    reader.ask()
    assert reader.take(clock.now_s) is None
    held.set()
    done.wait()
    assert _eventually(lambda: answers(reader, clock)) == 1


def test_a_hanging_source_is_told_and_ended(clock: Clock, held: threading.Event) -> None:
    def read() -> int:
        held.wait()
        raise ReaderError("ended")

    reader = Reader("a source", read, held.set)
    reader.ask()
    clock.now_s += LIMIT_S + 1
    reader.ask()
    assert held.is_set()
    assert reader.told() == ("a source: no answer within 10 s",)


def test_an_answer_of_another_time_is_dropped(clock: Clock, held: threading.Event) -> None:
    def read() -> int:
        held.wait()
        return 1

    reader = Reader("a source", read)
    reader.ask()
    held.set()
    clock.now_s += LIMIT_S + 1
    assert answers(reader, clock) is None
    assert reader.told() == ("a source: no answer within 10 s",)


def test_a_source_that_never_answered_is_told_at_the_end(
    clock: Clock, held: threading.Event
) -> None:
    reader = Reader("a source", held.wait)
    reader.ask()
    reader.close()
    assert reader.told() == ("a source: no answer before the job ended",)


def _eventually(call: Callable[[], int | None]) -> int | None:
    """The first value of `call` that is not None."""
    for _ in range(1000):
        if (value := call()) is not None:
            return value
        time.sleep(0.01)
    return None
