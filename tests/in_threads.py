"""A group whose processes are threads of this one, for tests of what processes do together.

Torch's default generator is one for all threads, so nothing random may be compared here.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from torch import Tensor

from nlijob.gpu.group import Group

T = TypeVar("T")
LIMIT_S = 60.0
"""Longest time that a thread waits for the others, so that no fault stops the tests."""


class LeftAloneError(Exception):
    """Another member has failed, so that this one cannot go on."""


class Meeting:
    """Where the members of a group exchange values, round by round."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._rounds: dict[int, dict[int, Any]] = defaultdict(dict)
        self._changed = threading.Condition()
        self._has_ended = False

    def exchange(self, number: int, rank: int, value: Any) -> list[Any]:
        """Every member's value of a round, by rank."""
        with self._changed:
            given = self._rounds[number]
            given[rank] = value
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(given) == self.size or self._has_ended, LIMIT_S)
            if len(given) < self.size:
                raise LeftAloneError
            return [given[rank] for rank in range(self.size)]

    def end(self) -> None:
        """Let nobody wait for a member that has failed."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()


class ThreadGroup(Group):
    """A member of a group of threads."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        super().__init__()
        self.rank, self.size, self.local_rank = rank, meeting.size, rank
        self.rounds = 0
        """Number of exchanges so far."""
        self._meeting = meeting

    def gather(self, value: T) -> list[T]:
        """See `Group`."""
        self.rounds += 1
        return self._meeting.exchange(self.rounds, self.rank, value)

    def share(self, value: T) -> T:
        """See `Group`."""
        return self.gather(value)[0]

    def sum(self, tensor: Tensor) -> None:
        """See `Group`."""
        first, *others = self.gather(tensor.detach().clone())
        tensor.copy_(sum(others, start=first))


def together(size: int, work: Callable[[Group], T]) -> list[T | Exception]:
    """What each of so many processes returns or raises, by rank."""
    meeting = Meeting(size)

    def member(rank: int) -> T | Exception:
        try:
            return work(ThreadGroup(rank, meeting))
        except Exception as error:
            meeting.end()
            return error

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(member, range(size)))


def outcomes(size: int, work: Callable[[Group], T]) -> list[T]:
    """What each of so many processes returns; raises what one raises."""
    found = together(size, work)
    errors = [outcome for outcome in found if isinstance(outcome, Exception)]
    for error in sorted(errors, key=lambda error: isinstance(error, LeftAloneError)):
        raise error
    return [outcome for outcome in found if not isinstance(outcome, Exception)]
