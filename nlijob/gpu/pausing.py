"""When the processes of a group pause within an epoch: all after the same step."""

from __future__ import annotations

from collections.abc import Callable

from nlijob.gpu.group import Group

STEPS_BETWEEN_QUESTIONS = 8
"""Steps of an epoch after which a group asks its lead. Asking makes every process wait for it."""


class Pauses:
    """Whether to pause after a step. In a group, only the lead's answer counts."""

    def __init__(self, pause: Callable[[], bool], group: Group) -> None:
        """`pause`: whether a pause is due by now; called after each step until it is."""
        self._pause = pause
        self._group = group
        self._is_due = False

    def due_after(self, steps: int) -> bool:
        """Whether to pause now; `steps` are those done of the epoch."""
        self._is_due = self._is_due or self._pause()
        if not self._group.is_shared:
            return self._is_due
        if steps % STEPS_BETWEEN_QUESTIONS:
            return False
        return self._group.share(self._is_due)
