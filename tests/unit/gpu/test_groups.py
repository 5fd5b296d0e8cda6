"""The scaffold for tests of several processes."""

from __future__ import annotations

import os

import pytest

from nlijob.gpu.group import Group
from tests.groups import in_group


def _gathered(group: Group, number: int) -> list[int]:
    return group.gather(group.rank + number)


def _failing(group: Group) -> int:
    if group.rank == 1:
        raise ValueError("broken here")
    return group.share(1)


def _dying(group: Group) -> int:
    if group.rank == 0:
        os._exit(3)
    return group.share(1)


def test_each_process_of_a_group_answers() -> None:
    assert in_group(2, _gathered, 3) == [[3, 4], [3, 4]]


@pytest.mark.parametrize(("function", "said"), [(_failing, "broken here"), (_dying, "0 died")])
def test_a_process_that_fails_is_named(function: object, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        in_group(2, function)  # type: ignore[arg-type]
