"""A clock that moves when a test says so."""

from __future__ import annotations


class Clock:
    """Stands in for the module `time`, of which only `monotonic` is used."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now
