"""What an attempt records of itself, whatever happens to it and to the clock."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from nlijob import attempt as attempt_module
from nlijob import records
from nlijob.analysis.times import attempt_times
from nlijob.attempt import Attempt, Moment
from nlijob.errors import JobError, NotAvailableError
from nlijob.records.job import Timing
from nlijob.rundir import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


@pytest.fixture
def attempt(run: RunDir) -> Attempt:
    return Attempt(run, Moment.now())


def timings(run: RunDir) -> list[Timing]:
    return list(records.read_lines(Timing, run.timings))


def test_an_attempt_that_is_killed_at_once_leaves_a_trace(run: RunDir, attempt: Attempt) -> None:
    attempt.begin()
    assert list(attempt_times(timings(run))) == [1]
    assert attempt_times(timings(run))[1].is_least


def test_an_attempt_begins_once(run: RunDir, attempt: Attempt) -> None:
    attempt.begin()
    attempt.begin()
    assert len(timings(run)) == 1


def test_the_next_attempt_has_the_next_number(run: RunDir, attempt: Attempt) -> None:
    attempt.begin()
    later = Attempt(run, Moment.now())
    later.begin()
    assert later.number == 2


def test_an_attempt_begins_below_a_line_that_a_crash_left_incomplete(
    run: RunDir, attempt: Attempt
) -> None:
    attempt.begin()
    with run.timings.open("a", encoding="utf-8") as handle:
        handle.write('{"attempt": 1, "sta')
    Attempt(run, Moment.now()).begin()
    assert [timing.attempt for timing in timings(run)] == [1, 2]


def test_the_whole_time_is_recorded_once(run: RunDir, attempt: Attempt) -> None:
    with attempt.whole():
        attempt.begin()
        attempt.end()
        with attempt.timed("report"):
            pass
    assert [(t.stage, t.kind) for t in timings(run)] == [
        ("job", "other"),
        ("job", "stage"),
        ("report", "stage"),
    ]


def test_the_whole_time_of_an_attempt_that_fails_is_recorded(run: RunDir, attempt: Attempt) -> None:
    attempt.begin()
    with pytest.raises(NotAvailableError), attempt.whole():
        raise NotAvailableError("no rows")
    assert not attempt_times(timings(run))[1].is_least


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), JobError("full")])
def test_an_error_is_not_hidden_by_one_at_the_end(
    run: RunDir, attempt: Attempt, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    attempt.begin()
    monkeypatch.setattr(attempt_module, "append_to_log", fail)
    with pytest.raises(NotAvailableError), attempt.whole():
        raise NotAvailableError("no rows")


def test_an_attempt_that_never_began_records_nothing(run: RunDir, attempt: Attempt) -> None:
    with attempt.whole():
        pass
    assert not run.timings.exists()


def test_a_clock_that_is_set_changes_no_duration(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    walls = itertools.cycle([2e9, 1e9, 3e9])
    monkeypatch.setattr(time, "time", lambda: next(walls))
    began_s = time.monotonic()
    attempt = Attempt(run, Moment.now())
    with attempt.whole():
        attempt.begin()
        attempt.fetched()
        with attempt.timed("subset"):
            pass
    limit_s = time.monotonic() - began_s
    recorded = timings(run)
    assert len({timing.started_at_s for timing in recorded}) > 1
    for timing in recorded:
        assert 0 <= timing.duration_s <= limit_s
        assert began_s <= (timing.started_monotonic_s or 0) <= began_s + limit_s
