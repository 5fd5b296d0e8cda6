"""Asks a source of figures that may fail or hang, and never waits long for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

from nlijob.errors import first_line
from nlijob.hardware.driver import start

T = TypeVar("T")

LIMIT_S = 10.0
"""Time after which a source counts as hanging."""
LONGEST_REST_S = 300.0
"""Longest time without a question to a source that keeps failing."""


class ReaderError(Exception):
    """A source has no figures, for a reason that a user can read."""


class Reader(Generic[T]):
    """One source of figures, asked in a thread of its own.

    There is never more than one question at a time. After each failure in a row the source is left
    alone for twice as long.
    """

    def __init__(
        self, words: str, read: Callable[[], T], end: Callable[[], None] = lambda: None
    ) -> None:
        """`words` name the source and its figures; `end` stops a question that takes too long."""
        self._words = words
        self._read = read
        self._end = end
        self._answer: Future[T] | None = None
        self._is_late = False
        self._is_stale = False
        self._asked_s = 0.0
        self._rest_until_s = 0.0
        self._failures = 0
        self._has_answered = False
        self._untold = ""
        self._is_told = False

    def ask(self) -> None:
        """Put the question, unless an earlier one is open or the source is left alone."""
        now = time.monotonic()
        self._is_late = self._answer is not None
        if self._is_late:
            self._is_stale = now - self._asked_s > LIMIT_S
            if self._is_stale:
                self._note(_reason(None))
                self._end()
        elif now >= self._rest_until_s:
            self._is_stale = False
            self._asked_s = now
            self._answer = start(self._read)

    def take(self, deadline_s: float) -> T | None:
        """The answer, also a late one to an earlier question; None if there is none.

        Waits until `deadline_s` on the monotonic clock, and not at all for an earlier question. An
        answer to a question of more than `LIMIT_S` ago is of another time, and is dropped.
        """
        answer = self._answer
        if answer is None:
            return None
        wait([answer], 0 if self._is_late else max(0.0, deadline_s - time.monotonic()))
        if not answer.done():
            return None
        self._answer = None
        error = answer.exception()
        if error or self._is_stale:
            self._fail(str(error) if isinstance(error, ReaderError) else _reason(error))
            return None
        self._failures = 0
        self._has_answered = True
        return answer.result()

    def close(self) -> None:
        """End whatever the question has started; a source that never answered is told."""
        if self._answer is not None and not self._has_answered:
            self._note("no answer before the job ended")
        self._end()

    def told(self) -> tuple[str, ...]:
        """The first fault of the source, at the first call after it."""
        untold, self._untold = self._untold, ""
        return (untold,) if untold else ()

    def _fail(self, reason: str) -> None:
        self._failures += 1
        self._rest_until_s = time.monotonic() + min(LONGEST_REST_S, 2.0 ** min(self._failures, 9))
        self._note(reason)

    def _note(self, reason: str) -> None:
        if not self._is_told:
            self._is_told = True
            self._untold = f"{self._words}: {reason}"


def _reason(error: BaseException | None) -> str:
    return first_line(error) if error else f"no answer within {LIMIT_S:.0f} s"
