"""Fetches a run from its place, to go on with it on another machine."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from nlijob.errors import NotAvailableError, first_line
from nlijob.rundir import MARKERS, RunDir, write_text
from nlijob.storage import contents
from nlijob.storage.contents import is_kept
from nlijob.storage.place import Place

T = TypeVar("T")

ATTEMPTS = 3
"""The clients of buckets try each request several times as well."""
FIRST_WAIT_S = 1.0
ANSWER_S = 60.0
"""Time the place has to say what it holds."""


def resume(run: RunDir, place: Place, tell: Callable[[str], None]) -> None:
    """Make the run's folder as the place is, where the place got further with the same run.

    A folder that holds anything complete that the place does not hold stays as it is: the two are
    never mixed. Raises NotAvailableError where the place cannot be read.
    """
    try:
        sizes, there = _answer(partial(_complete_there, place))
        here = _complete(
            contents.markers(run.root),
            {name: stamp.size for name, stamp in contents.stamps(run.root).items()},
        )
        if not there:
            tell(f"Nothing complete at {place.url} to go on from")
        elif not here.items() <= there.items():
            tell(f"{run.root} holds what {place.url} does not: it is left as it is")
        elif here != there:
            _fetch(run, place, sizes, there)
            tell(f"Going on from {place.url}: {len(there)} complete stages and epochs fetched")
    except Exception as error:
        raise NotAvailableError(
            f"{place.option} {place.url} cannot be read: {first_line(error)}",
            f"check URL, network and credentials; without {place.option} the job starts anew",
        ) from error


def _complete_there(place: Place) -> tuple[dict[str, int], dict[str, bytes]]:
    """Name -> bytes of all files at the place, and the markers that hold there."""
    sizes = _retried(place.sizes)
    markers = {name: _retried(partial(place.read, name)) for name in sizes if _is_marker(name)}
    return sizes, _complete(markers, sizes)


def _answer(call: Callable[[], T]) -> T:
    """What `call` gives, unless that takes too long.

    Clients of buckets try again for a quarter of an hour where a server accepts and stays silent.
    """
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(call())
        except Exception as error:
            answer.set_exception(error)

    thread = threading.Thread(target=ask, name="resume", daemon=True)
    thread.start()
    thread.join(ANSWER_S)
    if not answer.done():
        raise TimeoutError(f"no answer within {ANSWER_S:.0f} s")
    return answer.result()


def _fetch(run: RunDir, place: Place, sizes: Mapping[str, int], there: Mapping[str, bytes]) -> None:
    """Put what is there in the place of what is here; markers go first and come last."""
    for name in sorted(contents.stamps(run.root), key=_is_marker, reverse=True):
        (run.root / name).unlink()
    for name in sizes:
        if not _is_marker(name):
            _retried(partial(place.fetch, name, run.root / name))
    for name, content in there.items():
        write_text(run.root / name, content.decode())


def _complete(markers: Mapping[str, bytes], sizes: Mapping[str, int]) -> dict[str, bytes]:
    return {name: content for name, content in markers.items() if is_kept(content, sizes)}


def _is_marker(name: str) -> bool:
    return name.startswith(MARKERS)


def _retried(call: Callable[[], T]) -> T:
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except (FileNotFoundError, PermissionError):
            raise
        except Exception:
            time.sleep(FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
    return call()
