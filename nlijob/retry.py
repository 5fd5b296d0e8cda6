"""Calls that are tried again when they fail, after pauses that double and vary."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def pause_s(failures: int, first_s: float, longest_s: float = math.inf) -> float:
    """Time to wait after this many failures in a row, from 1.

    It doubles with each failure from `first_s` up to `longest_s`, and varies by half, so that many
    jobs that failed together do not come back together.
    """
    return min(first_s * 2.0 ** (failures - 1), longest_s) * random.uniform(0.5, 1.5)


def retry(
    call: Callable[[], T],
    attempts: int,
    first_wait_s: float,
    is_final: Callable[[Exception], bool],
    on_failure: Callable[[Exception, float], None] = lambda error, wait_s: None,
) -> T:
    """The value of `call`, which is made up to `attempts` times.

    `is_final` says whether another attempt would fail in the same way; `on_failure` gets each error
    that is followed by another attempt, and the pause before it. Raises the last error.
    """
    for failures in range(1, attempts):
        try:
            return call()
        except Exception as error:
            if is_final(error):
                raise
            wait_s = pause_s(failures, first_wait_s)
            on_failure(error, wait_s)
        time.sleep(wait_s)
    return call()
