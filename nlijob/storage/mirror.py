"""Sends a run to its place while the job runs."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from types import TracebackType

from nlijob.ending import end_of
from nlijob.errors import ExitCode, first_line
from nlijob.rundir import MARKERS, TRAIN, TRAINING_STATES, RunDir, training_state_of
from nlijob.storage import contents
from nlijob.storage.contents import Stamp, content_of, is_kept, stamp_of
from nlijob.storage.place import Place

POLL_S = 1.0
"""Time between two looks at the run's markers."""
FIRST_ANSWER_S = 5.0
"""The job waits this long for the place's first answer, to say at once that there is none."""
ATTEMPTS = 4
"""At the job's end, so many rounds may fail in a row with nothing getting through."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
"""Time before a failed round is tried again: the first, doubled each time up to the longest."""
PATIENCE_S = 300.0
"""At the job's end: time without a byte getting through after which the upload is given up."""
STOP_WAIT_S = 2.0
"""The same after a stop, all in all: what is complete has been sent when it was completed."""

COMES_AND_GOES = (MARKERS, TRAIN)
"""Where another run may have left files at the place that this one would take for its own."""


class Mirror:
    """Keeps the place as the run's folder is, from the moment it is entered until it is left.

    One thread watches the run's markers and sends what changed whenever a stage or an epoch has
    become complete; nothing else of the job knows about it. Faults never reach the job: they are
    told when the mirror is left.
    """

    def __init__(
        self,
        run: RunDir,
        place: Place,
        tell: Callable[[str], None],
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """`tell` is given a line at the end; `warn` (default: `tell`), one about each failure."""
        self.url = place.url
        self._root = run.root
        self._place = place
        self._tell = tell
        self._warn = warn or tell
        self._there: dict[str, Stamp | None] | None = None
        """File at the place -> its stamp here when it was sent; None for another run's file.

        Not known before the place has answered.
        """
        self._fault: Exception | None = None
        self._faults_in_a_row = 0
        self._moved = 0.0
        """When something last got through."""
        self._answered = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="upload", daemon=True)

    @property
    def missing(self) -> list[str]:
        """Names of the files that do not stand at the place as they stand here."""
        there = self._there or {}
        return [
            name for name, stamp in contents.stamps(self._root).items() if there.get(name) != stamp
        ]

    def __enter__(self) -> Mirror:
        self._thread.start()
        if not self._answered.wait(FIRST_ANSWER_S) or self._there is None:
            self._warn(
                f"Note: no answer from {self.url}{self._why}; "
                "it is tried again while the job goes on"
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stopped = end_of(error).exit_code == ExitCode.STOPPED
        self._ended.set()
        try:
            if stopped:
                self._thread.join(STOP_WAIT_S)
            else:
                self._wait_while_bytes_move()
        finally:  # also where a signal ends the waiting
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
            return f"Uploaded: {self.url}, but for the last lines of logs{self._why}"
        files = "1 file" if len(missing) == 1 else f"{len(missing)} files"
        return (
            f"Not uploaded to {self.url}: {files}{self._why}; "
            "the same command sends what is missing"
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
        wait_s = FIRST_WAIT_S * 2.0 ** (self._faults_in_a_row - 1)
        return min(wait_s, LONGEST_WAIT_S) * random.uniform(0.5, 1.5)

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
        """Send what changed; what has been sent is not sent again where a round breaks off."""
        if self._there is None:
            self._there = self._meet()
        there = self._there
        markers = contents.markers(self._root)  # before the files: they may be of a later time
        here = contents.stamps(self._root)
        if not markers:
            return
        self._withdraw(there, here)
        for name in sorted(here, key=_most_fleeting_first):
            if not name.startswith(MARKERS) and there.get(name) != here[name]:
                self._send(name, there, here[name])
        sizes = {name: stamp.size for name, stamp in here.items()}
        for name, content in markers.items():
            if there.get(name) != here.get(name) and is_kept(content, sizes):
                self._send_marker(name, content, there, here.get(name))
        self._prune(there, here)

    def _meet(self) -> dict[str, Stamp | None]:
        """What stands at the place already: all that a marker vouches for here and there alike."""
        try:
            here = contents.stamps(self._root)  # before the markers: it is what they vouch for
            sizes = self._place.sizes()
            there: dict[str, Stamp | None] = {
                n: None for n in sizes if n.startswith(COMES_AND_GOES)
            }
            for marker, content in contents.markers(self._root).items():
                if (
                    marker in sizes
                    and is_kept(content, sizes)
                    and self._place.read(marker) == content
                ):
                    files = [marker, training_state_of(marker), *contents.vouched(content)]
                    for name in files:
                        if name in here and here[name].size == sizes.get(name):
                            there[name] = here[name]
            self._got_through()
            return there
        finally:
            self._answered.set()

    def _withdraw(self, there: dict[str, Stamp | None], here: dict[str, Stamp]) -> None:
        """Take away markers that hold no longer, then what another run left beside them."""
        for name in [n for n in there if n.startswith(MARKERS) and there[n] != here.get(n)]:
            self._remove(name, there)
        for name in [n for n, stamp in there.items() if stamp is None]:
            self._remove(name, there)

    def _send(self, name: str, there: dict[str, Stamp | None], stamp: Stamp) -> None:
        file = self._root / name
        try:
            self._place.send(name, file, self._bytes_moved)
        except FileNotFoundError:
            if file.exists():
                raise
            return  # gone meanwhile; a marker that vouches for it has gone before
        there[name] = stamp
        self._got_through()

    def _send_marker(
        self, name: str, content: bytes, there: dict[str, Stamp | None], stamp: Stamp | None
    ) -> None:
        """Send a marker that stood all the while its files were sent."""
        file = self._root / name
        if stamp_of(file) == stamp and content_of(file) == content:
            self._place.write(name, content)
            there[name] = stamp
            self._got_through()

    def _prune(self, there: dict[str, Stamp | None], here: dict[str, Stamp]) -> None:
        """Take away what went away here, such as the training state of the epoch before."""
        for name in [name for name in there if name not in here]:
            with contextlib.suppress(PermissionError):  # a bucket may keep all it was given
                self._remove(name, there)

    def _remove(self, name: str, there: dict[str, Stamp | None]) -> None:
        self._place.remove(name)
        del there[name]
        self._got_through()


def _most_fleeting_first(name: str) -> tuple[bool, str]:
    """Training states first: each goes away when the next epoch is complete."""
    return not name.startswith(TRAINING_STATES), name
