"""A sign of life of each process of a group, and a watch over those of the others.

A process that dies is noticed by its launcher. One that hangs is not: it was stopped, its machine
has gone, or a library never returns and lets nothing else in the process run. So each process adds
to a counter in the group's store, and a counter that stands still for `SILENT_S` has the group
ended. This is about processes; a main thread that waits for ever while its process lives is ended
by the limits of `nlijob.gpu.group`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch

from nlijob import records
from nlijob.errors import ExitCode
from nlijob.gpu.group import Group, ProcessGroup
from nlijob.records.job import WorkerFailure
from nlijob.rundir import RunDir, write_record

BEAT_S = 2.0
"""Time between two signs of life."""
SILENT_S = 20.0
"""Time without one after which a process counts as hanging."""
HELD_UP_S = 3 * BEAT_S
"""A watcher that comes this late was held up itself, and with it perhaps the others: it begins to
watch anew. So no process is blamed where a machine was suspended, or a whole job stopped."""
ENDED = -(2**40)
"""What a process adds to its counter when its work with the group is over."""


GONE_S = 3 * BEAT_S
"""The same in a process that is being stopped. Its launcher stops it because another one died; on a
GPU the main thread then waits for that one for ever, and handles no signal."""


class GoneError(Exception):
    """Another process has gone, which this one is being stopped for."""


class Store(Protocol):
    """What is used of torch's stores, which all processes of a group see."""

    def add(self, key: str, amount: int) -> int:
        """Add to a counter, which begins at 0; returns its new value."""

    def set(self, key: str, value: str) -> None:
        """Set the value of a key."""

    def get(self, key: str) -> bytes:
        """The value of a key; waits until it is set."""


class Watch:
    """What one process knows of the others' signs of life."""

    def __init__(self, store: Store, rank: int, size: int, now_s: float) -> None:
        self._store = store
        self._rank = rank
        self._size = size
        self._looked_s = now_s
        self._seen: dict[int, tuple[int, float]] = {}
        """Rank -> its counter, and since when it has stood so."""

    def beat(self) -> None:
        """Give a sign of life."""
        self._store.add(_beats(self._rank), 1)

    def silent(self, now_s: float, limit_s: float = SILENT_S) -> tuple[int, float] | None:
        """Rank of a process that hangs, and the time in s that its counter has stood still.

        That is at least `limit_s`.
        """
        was_held_up = now_s - self._looked_s > HELD_UP_S
        self._looked_s = now_s
        for rank in range(self._size):
            count = self._store.add(_beats(rank), 0)
            if rank == self._rank or count <= 0:  # it has not begun, or its work is over
                continue
            before, since_s = self._seen.get(rank, (0, now_s))
            if count != before or was_held_up:
                self._seen[rank] = (count, now_s)
            elif now_s - since_s >= limit_s:
                return rank, now_s - since_s
        return None


@contextlib.contextmanager
def watch(group: Group, run: RunDir, is_stopping: Callable[[], bool]) -> Iterator[None]:
    """Give signs of life and watch the others while the block lasts; alone, do nothing.

    Where a process hangs, the run's failure record says so, and this process is sent SIGTERM. Its
    launcher then ends the others on this host, and the parent those that do not end by themselves.
    Where one has gone and this process is being stopped (`is_stopping`), it ends at once; what
    ended the first one is its launcher's to say.
    """
    if not isinstance(group, ProcessGroup):
        yield
        return
    shared: Any = group.store
    store = shared.clone()  # a connection of its own: the main thread may wait in the other
    own = _place_of(group)  # the thread calls no CUDA: that could spoil the capture of a graph
    over = threading.Event()

    def work() -> None:
        try:
            failure = watch_until(over.wait, store, own, time.monotonic, is_stopping)
            if failure:
                tell(failure, store, run)
        except GoneError:
            os._exit(ExitCode.STOPPED)
        except Exception as error:  # the store has gone, and with it the launcher of the first host
            if over.is_set():
                return
            print(f"the other processes cannot be watched any more: {error}", flush=True)
        else:
            if failure is None:
                return
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=work, name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        with contextlib.suppress(Exception):  # as above
            store.add(_beats(group.rank), ENDED)


def watch_until(
    is_over: Callable[[float], bool],
    store: Store,
    own: WorkerFailure,
    clock: Callable[[], float],
    is_stopping: Callable[[], bool],
) -> WorkerFailure | None:
    """Give signs of life until a process fails, which is returned, or the work is over.

    `is_over` waits for so many seconds and says whether it is. `own`: what a failure of this
    process would say of its place. `is_stopping`: whether this process has been asked to stop.
    Raises GoneError where it has, and another one has gone; an error of torch's where the store
    cannot be reached.
    """
    store.set(_place(own.rank), json.dumps(dataclasses.asdict(own)))
    signs = Watch(store, own.rank, own.processes, clock())
    signs.beat()
    while not is_over(BEAT_S):
        signs.beat()
        if store.add(FAILURES, 0):
            return _failure(store.get(FAILURE))
        stops = is_stopping()
        if silent := signs.silent(clock(), GONE_S if stops else SILENT_S):
            if stops:
                raise GoneError
            rank, silent_s = silent
            failure = _failure(store.get(_place(rank)))
            return dataclasses.replace(failure, silent_s=silent_s)
    return None


def tell(failure: WorkerFailure, store: Store, run: RunDir) -> None:
    """Write down a failure on this host, and have the processes on other hosts do so."""
    if store.add(FAILURES, 1) == 1:
        store.set(FAILURE, json.dumps(dataclasses.asdict(failure)))
    if store.add(f"{FAILURES} told on {socket.gethostname()}", 1) == 1:
        with contextlib.suppress(OSError):  # on a full disk
            write_record(run.worker_failure, failure)


FAILURES, FAILURE = "heartbeat/failures", "heartbeat/failure"
"""Keys of the number of failures that were told, and of the first one."""


def _beats(rank: int) -> str:
    return f"heartbeat/{rank}"


def _place(rank: int) -> str:
    return f"heartbeat/place/{rank}"


def _place_of(group: ProcessGroup) -> WorkerFailure:
    """What a failure of this process would say of its place. Calls CUDA for the GPU's name."""
    gpu = torch.cuda.get_device_name(group.device) if group.device.type == "cuda" else ""
    return WorkerFailure(
        rank=group.rank,
        processes=group.size,
        local_rank=group.local_rank,
        host=group.host,
        pid=os.getpid(),
        status=None,
        gpu=gpu,
    )


def _failure(text: bytes) -> WorkerFailure:
    return records.from_json(WorkerFailure, json.loads(text))
