"""How often a failing call is made, and how long the pauses between are."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from nlijob.retry import pause_s, retry, retry_after_s


class Failing:
    """Fails with the given errors, then returns how often it was called."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return self.calls


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made; none takes time."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def test_a_call_that_works_is_made_once(slept: list[float]) -> None:
    assert retry(Failing(), 3, 1.0, lambda _: False) == 1
    assert slept == []


def test_a_call_that_fails_is_made_again_after_growing_pauses(slept: list[float]) -> None:
    told: list[tuple[str, float]] = []
    call = Failing(OSError("a"), OSError("b"))
    assert retry(call, 3, 1.0, lambda _: False, lambda e, s: told.append((str(e), s))) == 3
    assert told == [("a", slept[0]), ("b", slept[1])]
    assert 0.5 <= slept[0] <= 1.5
    assert 1.0 <= slept[1] <= 3.0


def test_the_last_error_is_raised() -> None:
    call = Failing(OSError("a"), OSError("b"), OSError("c"))
    with pytest.raises(OSError, match="b"):
        retry(call, 2, 1.0, lambda _: False)
    assert call.calls == 2


def test_a_final_error_is_raised_at_once(slept: list[float]) -> None:
    call = Failing(PermissionError("no"))
    with pytest.raises(PermissionError):
        retry(call, 3, 1.0, lambda error: isinstance(error, PermissionError))
    assert (call.calls, slept) == (1, [])


def test_pauses_double_up_to_a_limit_and_vary() -> None:
    pauses = [{pause_s(failures, 1.0, 60.0) for _ in range(50)} for failures in (1, 2, 3, 30)]
    assert all(len(set_) > 1 for set_ in pauses)
    for around, found in zip((1, 2, 4, 60), pauses, strict=True):
        assert all(0.5 * around <= pause <= 1.5 * around for pause in found)
    means = [sum(found) / len(found) for found in pauses]
    assert all(one < other for one, other in itertools.pairwise(means))


def test_a_server_that_asks_for_a_longer_pause_gets_it(slept: list[float]) -> None:
    retry(Failing(OSError("a")), 3, 1.0, lambda _: False, asked_s=lambda _: 30.0)
    assert 30.0 <= slept[0] <= 37.5


def test_a_server_that_asks_for_no_pause_gets_the_usual_one(slept: list[float]) -> None:
    retry(Failing(OSError("a")), 3, 1.0, lambda _: False, asked_s=lambda _: 0.0)
    assert slept[0] >= 0.5


def test_progress_starts_the_count_of_failures_anew() -> None:
    call = Failing(*(OSError("a") for _ in range(7)))
    assert retry(call, 2, 1.0, lambda _: False, progress=lambda: call.calls) == 8


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        *((None, None), ("", None), ("soon", None), ("-5", None), ("1.5", None), ("\u0665", None)),
        *((" 7 ", 7.0), ("0", 0.0), ("61", 60.0), ("9" * 10_000, 60.0)),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 60.0),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)
def test_retry_after_is_read_within_bounds(header: str | None, asked: float | None) -> None:
    assert retry_after_s(header, 60.0) == asked


def test_retry_after_may_be_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    asked = retry_after_s(date, 7200.0)
    assert asked is not None
    assert 0.0 < asked <= 3600.0
