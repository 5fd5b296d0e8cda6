"""Calls that are tried again when they fail, after pauses that double and vary."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
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
    *,
    asked_s: Callable[[Exception], float | None] = lambda error: None,
    progress: Callable[[], object] = lambda: None,
) -> T:
    """The value of `call`, which is made until it has failed `attempts` times in a row.

    `is_final` says whether another attempt would fail in the same way; `on_failure` gets each error
    that is followed by another attempt, and the pause before it. `asked_s` is the pause that the
    server asked for, which is kept at least. A change of `progress` since the failure before starts
    the count anew. Raises the last error.
    """
    failures, reached = 0, progress()
    while True:
        try:
            return call()
        except Exception as error:
            failures = failures + 1 if progress() == reached else 1
            reached = progress()
            if failures >= attempts or is_final(error):
                raise
            wait_s = pause_s(failures, first_wait_s)
            asked = asked_s(error)
            if asked is not None:
                wait_s = max(wait_s, asked * random.uniform(1.0, 1.25))
            on_failure(error, wait_s)
        time.sleep(wait_s)


def retry_after_s(header: str | None, longest_s: float) -> float | None:
    """The pause that a `Retry-After` header asks for, from 0 to `longest_s`.

    It holds seconds or a date (RFC 9110, section 10.2.3). None if it is missing or is neither.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        # Digits beyond these are more than any limit, and too many are no number for Python.
        return min(float(text[:18]), longest_s) if len(text) <= 18 else longest_s
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    now = datetime.now(UTC if date.tzinfo else None)
    return min(max((date - now).total_seconds(), 0.0), longest_s)
