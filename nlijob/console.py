"""Prints the progress of a job: a line for each stage, and a bar if there is a terminal.

Without a terminal (container logs) every line is plain, and long work reports every few seconds.
The plain lines are also kept in a file of the run, because the reader of a log may be gone.
"""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from nlijob.analysis.wording import clock
from nlijob.ending import end_of
from nlijob.errors import ExitCode
from nlijob.printable import printable
from nlijob.records.job import Progress

PLAIN_INTERVAL_S = 15.0


class Verbosity(IntEnum):
    """How much of a job is printed."""

    QUIET = 0
    """Only the result, warnings and errors."""
    NORMAL = 1
    VERBOSE = 2
    """Also the log of the GPU side."""


class Console:
    """Writes the job's result to `results` and everything else to `out`.

    By default these are standard output and standard error.
    """

    def __init__(
        self,
        out: TextIO | None = None,
        verbosity: Verbosity = Verbosity.NORMAL,
        results: TextIO | None = None,
    ) -> None:
        self._out = out or sys.stderr
        self._results = results or sys.stdout
        self._verbosity = verbosity
        self._is_terminal = self._out.isatty()
        self._parts: dict[int, _Part] = {}
        """What each process of the GPU side is at."""
        self._kept: list[str] = []
        """Lines that are not in the file yet."""
        self._file: Path | None = None
        self._heading = ""

    @contextlib.contextmanager
    def kept_in(self, file: Path, heading: str) -> Iterator[None]:
        """Append to a file: a heading, every line from the first one on, and the block's error."""
        self._heading = f"--- {printable(heading)}"
        self._file = file
        if file.exists():  # lines of earlier attempts
            self._kept.insert(0, self._heading)
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
        self._keep()
        try:
            yield
        except BaseException as error:
            end = end_of(error)
            if end.exit_code == ExitCode.INTERNAL:
                self._keep(*"".join(traceback.format_exception(error)).splitlines())
            self._keep(f"error: {end.message}", *([f"hint: {end.hint}"] if end.hint else []))
            raise

    def line(self, text: str) -> None:
        """Write one line, unless the console is quiet."""
        self._keep(text)
        if self._verbosity >= Verbosity.NORMAL:
            self._write(text, self._out)

    def warn(self, text: str) -> None:
        """Write one line about a problem that does not end the job."""
        self._keep(text)
        self._write(text, self._out)

    def detail(self, text: str) -> None:
        """Write one line where the console is verbose; the run has these in a file of their own."""
        if self._verbosity >= Verbosity.VERBOSE:
            self._write(f"      | {text}", self._out)

    def result(self, text: str) -> None:
        """Write one line of the job's result."""
        self._keep(text)
        self._write(text, self._results)

    def stage(self, number: int, of: int, name: str, text: str) -> None:
        """Write a stage's line."""
        self.line(f"[{number}/{of}] {name:<9} {text}")

    def progress(self, progress: Progress) -> None:
        """Show how far the GPU side is; each of its processes has a bar of its own."""
        part = self._part_of(progress)
        self._show_plain(progress, part)
        if self._is_terminal and self._verbosity >= Verbosity.NORMAL:
            part.show_bar(progress, self._out)

    def finish_bar(self) -> None:
        """Remove the bars, if there are any."""
        shown = [part for part in self._parts.values() if part.has_bar]
        for part in shown:
            part.close_bar()
        if shown:  # a bar that is not the first leaves the cursor within its line
            self._out.write("\r")

    def _part_of(self, progress: Progress) -> _Part:
        """The part that a process is at; it begins with its first progress."""
        key = progress.stage, progress.part
        part = self._parts.get(progress.process)
        if part is None or part.key != key or part.is_over:
            if part:
                part.close_bar()
            part = self._parts[progress.process] = _Part(key, time.monotonic())
        part.is_over = 0 < progress.total <= progress.done
        return part

    def _write(self, text: str, to: TextIO) -> None:
        self.finish_bar()
        print(printable(text), file=to, flush=True)

    def _keep(self, *lines: str) -> None:
        self._kept += map(printable, lines)
        if self._file is None or not self._kept:
            return
        with contextlib.suppress(OSError):  # the disk may be full, and the job's records say so
            # A file is new at first, or where the run's folder was set aside meanwhile.
            heading = [] if self._file.exists() else [self._heading]
            with self._file.open("a", encoding="utf-8") as handle:
                handle.write("\n".join([*heading, *self._kept]) + "\n")
            self._kept.clear()

    def _show_plain(self, progress: Progress, part: _Part) -> None:
        """Tell how far a part is, now and then: the more are at work, the less often each."""
        now = time.monotonic()
        at_work = sum(not one.is_over for one in self._parts.values())
        if part.is_over or now - part.told < PLAIN_INTERVAL_S * at_work:
            return
        part.told = now
        text = f"      {progress.part}: {_plain(progress, now - part.started)}"
        if self._is_terminal:  # which has a bar
            self._keep(text)
        else:
            self.line(text)


class _Part:
    """A part of the work of one process."""

    def __init__(self, key: tuple[str, str], started: float) -> None:
        self.key = key
        """Its stage and name."""
        self.started = self.told = started
        """When it began, and when it was last told of, on the monotonic clock."""
        self.is_over = False
        self._bar: tqdm[Any] | None = None

    @property
    def has_bar(self) -> bool:
        """Whether its bar is shown."""
        return self._bar is not None

    def show_bar(self, progress: Progress, out: TextIO) -> None:
        """Show its bar, on the line of its process."""
        bar = self._bar
        if bar is None:
            bar = self._bar = tqdm(
                total=progress.total or None,
                desc=f"      {progress.part}",
                unit=f" {progress.unit}",
                file=out,
                leave=False,
                dynamic_ncols=True,
                position=progress.process,
            )
        bar.set_postfix_str(progress.note, refresh=False)
        bar.update(progress.done - bar.n)

    def close_bar(self) -> None:
        """Remove its bar, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _plain(progress: Progress, elapsed_s: float) -> str:
    of = f" of {progress.total:,}" if progress.total else ""
    text = f"{progress.done:,}{of} {progress.unit}"
    if progress.done:
        rate = progress.done / elapsed_s
        text += f", {rate:.1f} a second"
        if progress.total:
            text += f", {clock((progress.total - progress.done) / rate)} left"
    return f"{text}, {progress.note}" if progress.note else text
