"""Signs of life, on a clock that the tests move and in a store of their own."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nlijob import records
from nlijob.gpu import heartbeat
from nlijob.gpu.group import Group, ProcessGroup
from nlijob.gpu.heartbeat import BEAT_S, SILENT_S, Watch
from nlijob.records.job import WorkerFailure
from nlijob.rundir import RunDir
from tests.groups import in_group


class Values:
    """A store within this process."""

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self.values: dict[str, bytes] = {}

    def add(self, key: str, amount: int) -> int:
        self.counters[key] = self.counters.get(key, 0) + amount
        return self.counters[key]

    def set(self, key: str, value: str) -> None:
        self.values[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.values[key]


@pytest.fixture
def watches() -> list[Watch]:
    store = Values()
    return [Watch(store, rank, 3, 0.0) for rank in range(3)]


def seconds(until: float) -> Iterator[float]:
    now_s = 0.0
    while now_s < until:
        now_s += BEAT_S
        yield now_s


def test_processes_that_give_signs_of_life_are_left_alone(watches: list[Watch]) -> None:
    for now_s in seconds(5 * SILENT_S):
        for one in watches:
            one.beat()
        assert not any(one.silent(now_s) for one in watches)


def test_a_process_that_gives_none_for_long_enough_is_named(watches: list[Watch]) -> None:
    found = []
    for now_s in seconds(2 * SILENT_S):
        for rank, one in enumerate(watches):
            if rank != 1 or now_s <= BEAT_S:
                one.beat()
        if silent := watches[2].silent(now_s):
            found.append((now_s, *silent))
    assert found[0] == (BEAT_S + SILENT_S, 1, SILENT_S)


def test_a_process_that_has_not_begun_does_not_count_as_hanging(watches: list[Watch]) -> None:
    for now_s in seconds(2 * SILENT_S):
        watches[0].beat()
        assert watches[0].silent(now_s) is None


def test_a_process_whose_work_is_over_does_not_count_as_hanging(watches: list[Watch]) -> None:
    watches[1].beat()
    watches[0]._store.add("heartbeat/1", heartbeat.ENDED)
    for now_s in seconds(2 * SILENT_S):
        assert watches[0].silent(now_s) is None


def test_a_watcher_that_was_held_up_itself_blames_nobody(watches: list[Watch]) -> None:
    for now_s in seconds(4 * BEAT_S):
        watches[1].beat()
        assert watches[0].silent(now_s) is None
    later_s = 100 * SILENT_S
    assert watches[0].silent(later_s) is None
    assert watches[0].silent(later_s + BEAT_S) is None


OWN = WorkerFailure(0, 2, 0, "here", 98, None)


def records_text(failure: WorkerFailure) -> str:
    return json.dumps(dataclasses.asdict(failure))


def follow(
    store: Values,
    beats: int,
    each: Callable[[int], None] = lambda _: None,
    is_stopping: bool = False,
) -> WorkerFailure | None:
    """What rank 0 finds within so many beats; `each` is called before each of them."""
    at = iter(range(beats))
    clock_s = iter(BEAT_S * beat for beat in range(beats + 1))

    def is_over(_: float) -> bool:
        beat = next(at, None)
        if beat is not None:
            each(beat)
        return beat is None

    return heartbeat.watch_until(is_over, store, OWN, lambda: next(clock_s), lambda: is_stopping)


def test_where_and_how_long_a_process_hangs_is_told() -> None:
    store = Values()
    hanging = WorkerFailure(1, 2, 1, "there", 99, None, gpu="a GPU")
    store.set("heartbeat/place/1", records_text(hanging))
    store.add("heartbeat/1", 1)
    failure = follow(store, 100)
    assert failure
    assert (failure.rank, failure.host, failure.gpu, failure.pid) == (1, "there", "a GPU", 99)
    assert failure.silent_s == SILENT_S


def test_a_process_that_is_stopped_because_another_has_gone_does_not_wait_for_it() -> None:
    store, beats = Values(), list[int]()
    store.add("heartbeat/1", 1)
    with pytest.raises(heartbeat.GoneError):
        follow(store, 100, beats.append, is_stopping=True)
    assert len(beats) * BEAT_S == BEAT_S + heartbeat.GONE_S
    assert heartbeat.GONE_S < SILENT_S


def test_a_process_that_is_stopped_with_the_others_is_not_cut_short() -> None:
    store = Values()
    store.add("heartbeat/1", 1)
    assert follow(store, 100, lambda _: bool(store.add("heartbeat/1", 1)), is_stopping=True) is None


def test_a_failure_that_another_process_tells_ends_the_watch() -> None:
    store = Values()
    told = WorkerFailure(1, 2, 1, "there", 99, -9)

    def tell(beat: int) -> None:
        if beat == 1:
            store.set(heartbeat.FAILURE, records_text(told))
            store.add(heartbeat.FAILURES, 1)

    assert follow(store, 5, tell) == told


def test_work_that_ends_first_ends_the_watch() -> None:
    assert follow(Values(), 3) is None


def test_a_failure_is_written_once_on_a_host(tmp_path: Path) -> None:
    store, run = Values(), RunDir(tmp_path)
    first = WorkerFailure(1, 3, 1, "there", 99, None, silent_s=20.0)
    heartbeat.tell(first, store, run)
    heartbeat.tell(WorkerFailure(2, 3, 1, "there", 99, None, silent_s=20.0), store, run)
    assert records.read(WorkerFailure, run.worker_failure) == first


def test_a_process_alone_gives_no_signs(tmp_path: Path) -> None:
    with heartbeat.watch(Group(), RunDir(tmp_path), lambda: False):
        assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


def _watched(group: Group, root: Path) -> list[int]:
    assert isinstance(group, ProcessGroup)
    with heartbeat.watch(group, RunDir(root), lambda: False):
        group.gather(0)
        while not all(group.store.add(f"heartbeat/{rank}", 0) for rank in range(group.size)):
            time.sleep(0.01)
        group.gather(0)
    group.gather(0)
    return [int(group.store.add(f"heartbeat/{rank}", 0)) for rank in range(group.size)]


def test_each_process_of_a_group_gives_signs_while_it_works(tmp_path: Path) -> None:
    for counts in in_group(2, _watched, tmp_path):
        assert all(heartbeat.ENDED < count < 0 for count in counts)
