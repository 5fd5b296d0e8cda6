"""Downloads a run from its remote copy, to resume it on another machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from nlijob.errors import NotAvailableError, first_line
from nlijob.files import append
from nlijob.retry import retry
from nlijob.rundir import (
    EPOCH_MARKER,
    MARKERS,
    RunDir,
    epoch_and_step,
    split_trial,
    write_text,
)
from nlijob.storage import contents
from nlijob.storage.contents import clear_way, is_of_a_run, is_valid
from nlijob.storage.place import Place
from nlijob.waiting import GivenUpError, while_moving

T = TypeVar("T")

ATTEMPTS = 3
"""The clients of buckets also retry each request."""
FIRST_WAIT_S = 1.0
ANSWER_S = 60.0
"""Longest time without an answer about what the remote copy contains. If a server accepts
connections and stays silent, the clients of buckets retry for a quarter of an hour."""
SILENCE_S = 300.0
"""The download is given up after this time without a byte."""


def resume(run: RunDir, place: Place, tell: Callable[[str], None]) -> None:
    """Replace the run's folder by the remote copy, if the copy has completed more of the same run.

    If anything is complete in the folder and not in the copy, the folder stays as it is: the two
    are never mixed. A checkpoint within an epoch also counts as complete in a copy that has a later
    one of the same training. Lines of logs that the copy lacks are kept, as the time of a killed
    attempt counts. Raises NotAvailableError if the copy cannot be read.
    """
    try:
        sizes, remote = while_moving(partial(_complete_remote, place), ANSWER_S)
        local = _complete_local(run)
        if not remote:
            tell(f"Nothing complete at {place.url} to resume from")
        elif not all(_holds(remote, *marker) for marker in local.items()):
            tell(f"{run.root} is left as it is: it has complete stages that {place.url} has not")
        elif local != remote:
            logs = _lines_of_logs(run) if local else {}
            damaged = _fetch(run, place, sizes, remote)
            _complete_logs(logs)
            whole = {name: one for name, one in remote.items() if name not in damaged}
            tell(f"Resuming from {place.url}: downloaded {_counted(whole)}")
            for name, files in damaged.items():
                what = f"as it lists damaged files: {', '.join(files)}"
                tell(f"Note: {name} at {place.url} is left out, {what}")
    except Exception as error:
        raise NotAvailableError(
            f"{place.option} {place.url} cannot be read: {first_line(error)}",
            f"check URL, network and credentials; without {place.option} the job starts afresh",
        ) from error


def _complete_remote(
    place: Place, moved: Callable[[], None]
) -> tuple[dict[str, int], dict[str, bytes]]:
    """Name -> size in bytes of all remote files of a run, and the valid markers among them."""
    sizes = {name: n for name, n in _retried(place.sizes).items() if is_of_a_run(name)}
    markers = {}
    for name in filter(_is_marker, sizes):
        moved()
        markers[name] = _retried(partial(place.read, name))
    return sizes, _complete(markers, sizes)


def _complete_local(run: RunDir) -> dict[str, bytes]:
    """The markers in the folder whose files are whole."""
    sizes = {name: stamp.size for name, stamp in contents.stamps(run.root).items()}
    markers = _complete(contents.markers(run.root), sizes)
    return {n: one for n, one in markers.items() if not run.changed(contents.stamps_listed(one))}


def _fetch(
    run: RunDir, place: Place, sizes: Mapping[str, int], remote: Mapping[str, bytes]
) -> dict[str, list[str]]:
    """Replace the run's files by the remote ones; markers are deleted first and written last.

    Returns marker -> its files whose bytes are not those that it lists. Such a marker is left out.
    """
    for name in sorted(contents.stamps(run.root), key=_is_marker, reverse=True):
        if is_of_a_run(name):
            (run.root / name).unlink()
    while_moving(
        partial(_fetch_files, run, place, [n for n in sizes if not _is_marker(n)]), SILENCE_S
    )
    damaged = {}
    for name, content in remote.items():
        if changed := _damaged(run, place, content):
            damaged[name] = changed
        else:
            write_text(clear_way(run.root, name), content.decode())
    return damaged


def _lines_of_logs(run: RunDir) -> dict[Path, list[bytes]]:
    return {log: _lines(log) for log in (run.timings, run.hardware, run.machines)}


def _lines(log: Path) -> list[bytes]:
    """The whole lines of a log; none where it cannot be read."""
    content = contents.content_of(log) or b""
    return [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]


def _complete_logs(before: Mapping[Path, list[bytes]]) -> None:
    """Append the lines that the fetched logs lack."""
    for log, lines in before.items():
        fetched = set(_lines(log))
        if lacking := [line for line in lines if line not in fetched]:
            append(log, b"".join(lacking))


def _damaged(run: RunDir, place: Place, marker: bytes) -> list[str]:
    """Files that a marker lists and that differ from it, although they were fetched twice."""
    listed = contents.stamps_listed(marker)
    if again := run.changed(listed):  # the bytes may have been damaged on their way
        while_moving(partial(_fetch_files, run, place, again), SILENCE_S)
    return run.changed(listed)


def _fetch_files(
    run: RunDir, place: Place, names: Iterable[str], moved: Callable[[], None]
) -> None:
    for name in names:
        moved()
        file = clear_way(run.root, name)
        _retried(partial(place.fetch, name, file, moved))


def _complete(markers: Mapping[str, bytes], sizes: Mapping[str, int]) -> dict[str, bytes]:
    return {name: content for name, content in markers.items() if is_valid(content, sizes)}


def _holds(remote: Mapping[str, bytes], name: str, content: bytes) -> bool:
    """Whether the copy has a local marker or, for one within an epoch, got as far or further."""
    place = _place(name)
    if place is None or remote.get(name) == content:
        return remote.get(name) == content
    fingerprint = contents.fingerprint_of(content)
    return any(
        (_place(other) or _end_of_epoch(other)) >= place
        for other, of_other in remote.items()
        if contents.fingerprint_of(of_other) == fingerprint
    )


def _place(marker: str) -> tuple[int, int] | None:
    """Epoch and step of the marker of a checkpoint within an epoch; None for others."""
    return epoch_and_step(_name(marker))


def _end_of_epoch(marker: str) -> tuple[int, int]:
    """The first step after the epoch of an epoch's marker; (0, 0) for others."""
    epoch = _name(marker).removeprefix(EPOCH_MARKER)
    return (int(epoch) + 1, 0) if epoch.isdecimal() else (0, 0)


def _name(marker: str) -> str:
    """What a marker marks, without the training that it belongs to."""
    return split_trial(marker.removeprefix(MARKERS).removesuffix(".json"))[1]


def _counted(markers: Mapping[str, bytes]) -> str:
    within = sum(_place(name) is not None for name in markers)
    stages = f"{len(markers) - within} complete stages and epochs"
    return f"{stages}, and a checkpoint within an epoch" if within else stages


def _is_marker(name: str) -> bool:
    return name.startswith(MARKERS)


def _retried(call: Callable[[], T]) -> T:
    return retry(call, ATTEMPTS, FIRST_WAIT_S, _is_final)


def _is_final(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError | PermissionError | GivenUpError)
