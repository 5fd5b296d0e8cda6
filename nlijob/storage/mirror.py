"""Uploads a run to its remote copy while the job runs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from nlijob.ending import end_of
from nlijob.errors import ExitCode, first_line
from nlijob.retry import pause_s
from nlijob.rundir import (
    MARKERS,
    STEP_MARKER,
    TRAIN,
    TRIALS,
    RunDir,
    epoch_and_step,
    is_training_state,
    split_trial,
    step_state_name,
)
from nlijob.storage import contents
from nlijob.storage.contents import Stamp, content_of, is_valid, stamp_of
from nlijob.storage.place import Place

POLL_S = 1.0
"""Interval at which the run's markers are checked."""
FIRST_ANSWER_S = 5.0
"""The job waits this long for the first answer, so that it can warn early if there is none."""
ATTEMPTS = 4
"""Number of rounds at the job's end that may fail in a row without any progress."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
"""Pause after a failed round: it starts with the first and doubles up to the longest."""
PATIENCE_S = 300.0
"""At the job's end the upload is given up after this time without a byte getting through."""
LOOKS = 3
"""Most looks at the run's folder until its markers and files agree."""
STOP_WAIT_S = 2.0
"""After a stop the upload has this time in all; completed stages have been uploaded already."""

OF_STAGES = (
    *(MARKERS, "subset/", "elsewhere/", "baseline/", "search/", TRAIN, TRIALS, "evaluate/"),
    *("adapter/", "best.toml", "choice.json"),
    *("prompt.json", "selection.json", "results.json", "figures.json", "report.html"),
    "summary.md",
)
"""Beginnings of the names of what stages write: left behind by another run, these files could be
mistaken for this run's."""


class Mirror:
    """Keeps the remote copy equal to the run's folder while the context is active.

    A thread watches the run's markers and uploads what changed whenever a stage or an epoch is
    complete. The rest of the job does not know about it. Errors never reach the job; they are
    reported when the context ends.
    """

    def __init__(
        self,
        run: RunDir,
        place: Place,
        tell: Callable[[str], None],
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """`tell` is given a line at the end; `warn` (default: `tell`) is given failures."""
        self.url = place.url
        self._root = run.root
        self._place = place
        self._tell = tell
        self._warn = warn or tell
        self._remote: dict[str, Stamp | None] = {}
        """Remote file -> its local stamp when it was uploaded, or None if another run left it."""
        self._is_remote_known = False
        self._fault: Exception | None = None
        self._faults_in_a_row = 0
        self._moved = 0.0
        """Time at which bytes last got through."""
        self._answered = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="upload", daemon=True)

    @property
    def missing(self) -> list[str]:
        """Names of the files that are missing or out of date in the remote copy."""
        local = contents.stamps(self._root)
        return [name for name, stamp in local.items() if self._remote.get(name) != stamp]

    def __enter__(self) -> Mirror:
        self._thread.start()
        if not self._answered.wait(FIRST_ANSWER_S) or not self._is_remote_known:
            self._warn(
                f"Note: no answer from {self.url}{self._why}; trying again while the job continues"
            )
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        stopped = end_of(error).exit_code == ExitCode.STOPPED
        self._ended.set()
        try:
            if stopped:
                self._thread.join(STOP_WAIT_S)
            else:
                self._wait_while_bytes_move()
        finally:  # also if a signal interrupts the wait
            (self._warn if self.missing else self._tell)(self._summary())

    def _wait_while_bytes_move(self) -> None:
        self._moved = time.monotonic()
        while self._thread.is_alive() and time.monotonic() - self._moved < PATIENCE_S:
            self._thread.join(0.1)

    def _summary(self) -> str:
        missing = self.missing
        if not missing:
            return f"Uploaded: {self.url}"
        if not any(name.startswith(MARKERS) for name in missing):
            return f"Uploaded: {self.url}, except for the last lines of logs{self._why}"
        files = "1 file" if len(missing) == 1 else f"{len(missing)} files"
        return (
            f"Not uploaded to {self.url}: {files}{self._why}; "
            "the same command uploads what is missing"
        )

    @property
    def _why(self) -> str:
        return f" ({first_line(self._fault)})" if self._fault else ""

    # ------------------------------------------------------------ the thread

    def _watch(self) -> None:
        seen: dict[str, Stamp] | None = None
        again = 0.0
        while not self._ended.wait(0 if seen is None else POLL_S):
            markers = contents.stamps(self._root, MARKERS)
            if markers != seen or (self._fault and time.monotonic() > again):
                seen = markers
                if not self._try_round():
                    again = time.monotonic() + self._pause_s()
        while not self._try_round() and self._faults_in_a_row < ATTEMPTS:
            time.sleep(self._pause_s())

    def _pause_s(self) -> float:
        return pause_s(self._faults_in_a_row, FIRST_WAIT_S, LONGEST_WAIT_S)

    def _try_round(self) -> bool:
        try:
            self._round()
            self._fault = None
        except Exception as error:
            self._fault = error
            self._faults_in_a_row += 1
        return self._fault is None

    def _bytes_moved(self) -> None:
        self._moved = time.monotonic()

    def _got_through(self) -> None:
        self._bytes_moved()
        self._faults_in_a_row = 0

    def _round(self) -> None:
        """Upload what changed. After an error the next round continues with what is missing."""
        if not self._is_remote_known:
            try:
                self._remote = self._remote_state()
                self._is_remote_known = True
            finally:
                self._answered.set()
        markers, local = self._local_state()
        if not markers:
            return
        self._delete_outdated(local)
        for name in sorted(local, key=_short_lived_first):
            if not name.startswith(MARKERS) and self._remote.get(name) != local[name]:
                self._send(name, local[name])
        sizes = {name: stamp.size for name, stamp in local.items()}
        for name, content in markers.items():
            if self._remote.get(name) != local.get(name) and is_valid(content, sizes):
                self._send_marker(name, content, local.get(name))
        self._prune(local)

    def _local_state(self) -> tuple[dict[str, bytes], dict[str, Stamp]]:
        """The markers, and the files, which may be newer.

        Where a marker was added between the two looks, both are taken again: otherwise a checkpoint
        would be deleted in this round, and the one that replaced it uploaded in the next.
        """
        for _ in range(LOOKS):
            markers = contents.markers(self._root)
            local = contents.stamps(self._root)
            if all(name in markers for name in local if name.startswith(MARKERS)):
                break  # an empty file is no marker, so this need not happen
        return markers, local

    def _remote_state(self) -> dict[str, Stamp | None]:
        """The files that the copy already holds, as listed by the markers that both sides have."""
        local = contents.stamps(self._root)  # before the markers, which list these files
        sizes = self._place.sizes()
        remote: dict[str, Stamp | None] = {n: None for n in sizes if n.startswith(OF_STAGES)}
        for marker, content in contents.markers(self._root).items():
            if marker in sizes and is_valid(content, sizes) and self._place.read(marker) == content:
                to_continue = contents.needed_to_continue(content)
                for name in (marker, *contents.listed(content), *to_continue):
                    if name in local and local[name].size == sizes.get(name):
                        remote[name] = local[name]
        self._got_through()
        return remote

    def _delete_outdated(self, local: dict[str, Stamp]) -> None:
        """Delete markers that are no longer valid, then the files that another run left.

        A checkpoint within an epoch stays until the round has uploaded the next one: nothing
        replaces its file, and without it a machine that is lost now would lose the whole epoch.
        """
        remote = self._remote
        for name in [n for n in remote if n.startswith(MARKERS) and remote[n] != local.get(n)]:
            if not self._is_whole_step(name, local):
                self._remove(name)
        for name in [n for n, stamp in remote.items() if stamp is None]:
            self._remove(name)

    def _is_whole_step(self, marker: str, local: dict[str, Stamp]) -> bool:
        """Whether a marker is of a checkpoint within an epoch that is gone locally only.

        Its file in the copy stays as it is in this round.
        """
        trial, name = split_trial(marker.removeprefix(MARKERS).removesuffix(".json"))
        place = epoch_and_step(name)
        if place is None or marker in local:
            return False
        state = f"{trial}{step_state_name(*place)}"
        return state not in local or local[state] == self._remote.get(state)

    def _send(self, name: str, stamp: Stamp) -> None:
        file = self._root / name
        try:
            self._place.send(name, file, self._bytes_moved)
        except FileNotFoundError:
            if file.exists():
                raise
            return  # deleted meanwhile, after the marker that listed it
        self._remote[name] = stamp
        self._got_through()

    def _send_marker(self, name: str, content: bytes, stamp: Stamp | None) -> None:
        """Upload a marker, unless it changed while its files were uploaded."""
        file = self._root / name
        if stamp_of(file) == stamp and content_of(file) == content:
            self._place.write(name, content)
            self._remote[name] = stamp
            self._got_through()

    def _prune(self, local: dict[str, Stamp]) -> None:
        """Delete what was deleted locally, such as an earlier training state: markers first.

        Training states stay while a later marker waits for the next round.
        """
        gone = [name for name in self._remote if name not in local]
        if any(n.startswith(MARKERS) and self._remote.get(n) != local[n] for n in local):
            gone = [name for name in gone if not (is_training_state(name) or _is_of_step(name))]
        for name in sorted(gone, key=lambda name: not name.startswith(MARKERS)):
            with contextlib.suppress(PermissionError):  # a bucket may forbid deletion
                self._remove(name)

    def _remove(self, name: str) -> None:
        self._place.remove(name)
        del self._remote[name]
        self._got_through()


def _short_lived_first(name: str) -> tuple[bool, str]:
    """Sort key that puts training states first, as they are deleted once there is a later one."""
    return not is_training_state(name), name


def _is_of_step(name: str) -> bool:
    """Whether a file is the marker of a checkpoint within an epoch."""
    return split_trial(name.removeprefix(MARKERS))[1].startswith(STEP_MARKER)
