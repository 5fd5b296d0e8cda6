"""Prints the progress of a job: a line for each stage, and a bar if there is a terminal.

Without a terminal (container logs) every line is plain, and long work reports every few seconds.
"""

from __future__ import annotations

import sys
import time
from enum import IntEnum
from typing import Any, TextIO

from tqdm import tqdm

from nlijob.analysis.wording import clock
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

    def line(self, text: str) -> None:
        """Write one line, unless the console is quiet."""
        if self._verbosity >= Verbosity.NORMAL:
            self._write(text, self._out)

    def warn(self, text: str) -> None:
        """Write one line about a problem that does not end the job."""
        self._write(text, self._out)

    def detail(self, text: str) -> None:
        """Write one line where the console is verbose."""
        if self._verbosity >= Verbosity.VERBOSE:
            self._write(f"      | {text}", self._out)

    def result(self, text: str) -> None:
        """Write one line of the job's result."""
        self._write(text, self._results)

    def stage(self, number: int, of: int, name: str, text: str) -> None:
        """Write a stage's line."""
        self.line(f"[{number}/{of}] {name:<9} {text}")

    def progress(self, progress: Progress) -> None:
        """Show how far the GPU side is."""
        if self._verbosity < Verbosity.NORMAL:
            return
        key = (progress.stage, progress.part)
        if key != self._current:
            self.finish_bar()
            self._current = key
            self._part_started = self._last_plain = time.monotonic()
        if self._is_terminal:
            self._show_bar(progress)
        else:
            self._show_plain(progress)

    def finish_bar(self) -> None:
        """Remove the bar, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._current = None

    def _write(self, text: str, to: TextIO) -> None:
        self.finish_bar()
        print(text, file=to, flush=True)

    def _show_bar(self, progress: Progress) -> None:
        bar = self._bar
        if bar is None:
            bar = self._bar = tqdm(
                total=progress.total,
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
        self.line(f"      {progress.part}: {_plain(progress, now - self._part_started)}")
        self._current = (progress.stage, progress.part)


def _plain(progress: Progress, elapsed_s: float) -> str:
    text = f"{progress.done:,} of {progress.total:,} {progress.unit}"
    if progress.done:
        rate = progress.done / elapsed_s
        left_s = (progress.total - progress.done) / rate
        text += f", {rate:.1f} a second, {clock(left_s)} left"
    return f"{text}, {progress.note}" if progress.note else text
