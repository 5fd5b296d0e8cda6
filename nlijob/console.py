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
        self._bar: tqdm[Any] | None = None
        self._current: tuple[str, str] | None = None
        self._part_started = 0.0
        self._last_plain = 0.0
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
        """Show how far the GPU side is."""
        key = (progress.stage, progress.part)
        if key != self._current:
            self.finish_bar()
            self._current = key
            self._part_started = self._last_plain = time.monotonic()
        self._show_plain(progress)
        if self._is_terminal and self._verbosity >= Verbosity.NORMAL:
            self._show_bar(progress)

    def finish_bar(self) -> None:
        """Remove the bar, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._current = None

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

    def _show_bar(self, progress: Progress) -> None:
        bar = self._bar
        if bar is None:
            bar = self._bar = tqdm(
                total=progress.total or None,
                desc=f"      {progress.part}",
                unit=f" {progress.unit}",
                file=self._out,
                leave=False,
                dynamic_ncols=True,
            )
        bar.set_postfix_str(progress.note, refresh=False)
        bar.update(progress.done - bar.n)

    def _show_plain(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last_plain < PLAIN_INTERVAL_S or progress.done == progress.total:
            return
        self._last_plain = now
        text = f"      {progress.part}: {_plain(progress, now - self._part_started)}"
        if self._is_terminal:  # which has a bar
            self._keep(text)
            return
        self.line(text)
        self._current = (progress.stage, progress.part)


def _plain(progress: Progress, elapsed_s: float) -> str:
    of = f" of {progress.total:,}" if progress.total else ""
    text = f"{progress.done:,}{of} {progress.unit}"
    if progress.done:
        rate = progress.done / elapsed_s
        text += f", {rate:.1f} a second"
        if progress.total:
            text += f", {clock((progress.total - progress.done) / rate)} left"
    return f"{text}, {progress.note}" if progress.note else text
