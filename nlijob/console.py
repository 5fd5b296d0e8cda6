"""Prints the progress of a job: a line for each stage, and one bar for all if there is a terminal.

Without a terminal (container logs) every line is plain, and long work reports every few seconds.
The plain lines are also kept in a file of the run, because the reader of a log may be gone.
"""

from __future__ import annotations

import contextlib
import sys
import textwrap
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TextIO

from nlijob.analysis.wording import clock
from nlijob.ending import end_of
from nlijob.errors import ExitCode
from nlijob.printable import printable
from nlijob.records.job import Progress
from nlijob.remaining import Outlook
from nlijob.status_line import FULL, Status, status_line, width
from nlijob.terminal import (
    Style,
    can_write,
    columns_of,
    has_color,
    is_capable,
    painted,
    writable,
)

PLAIN_INTERVAL_S = 15.0
CAUTION = "Note:"
"""Beginning of a line about something that the user should know."""


LEAST_WRAPPED = 20
"""Columns of the narrowest terminal for which long notes are broken into lines."""


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
        self._has_bar = is_capable(self._out) and verbosity >= Verbosity.NORMAL
        self._shown = ""
        """The status line that stands at the terminal's bottom."""
        self._parts: dict[int, _Part] = {}
        """What each process of the GPU side is at."""
        self._kept: list[str] = []
        """Lines that are not in the file yet."""
        self._file: Path | None = None
        self._heading = ""

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish_bar()

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
        finally:
            self.finish_bar()

    def line(self, text: str, style: Style | None = None) -> None:
        """Write one line, unless the console is quiet."""
        self._keep(text)
        if self._verbosity >= Verbosity.NORMAL:
            self._write(text, self._out, style)

    def warn(self, text: str) -> None:
        """Write one line about a problem that does not end the job."""
        self._keep(text)
        self._write(text, self._out)

    def detail(self, text: str) -> None:
        """Write one line where the console is verbose; the run has these in a file of their own."""
        if self._verbosity >= Verbosity.VERBOSE:
            self._write(f"      | {text}", self._out, Style.DIM)

    def result(self, text: str) -> None:
        """Write one line of the job's result."""
        self._keep(text)
        self._write(text, self._results)

    def stage(self, number: int, of: int, name: str, text: str) -> None:
        """Write a stage's line."""
        head = f"[{number}/{of}] {name:<9} "
        self._keep(head + text)
        if self._verbosity >= Verbosity.NORMAL:
            self._write(head, self._out, Style.BOLD, then=text)

    def progress(self, progress: Progress, outlook: Outlook | None = None) -> None:
        """Show how far the GPU side is, and how far the job is where that is known."""
        part = self._part_of(progress)
        self._show_plain(progress, part, outlook)
        if self._has_bar:
            self._show_status(self._status(progress, outlook))

    def finish_bar(self) -> None:
        """Remove the bar, if there is one."""
        if self._shown:  # spaces: not every terminal knows how to erase a line
            self._out.write(f"\r{self._blank(0)}\r")
            self._out.flush()
            self._shown = ""

    def _status(self, progress: Progress, outlook: Outlook | None) -> Status:
        """The bar is the job's or, where nothing is known of that, the part's."""
        at_work = sum(not one.is_over for one in self._parts.values())
        others = f" (and {at_work - 1} more)" if at_work > 1 else ""
        doing = f"{progress.part}{others}: {_done(progress)}"
        doing += f", {progress.note}" if progress.note else ""
        if outlook:
            return Status(outlook.share, outlook.left, doing)
        return Status(progress.done / progress.total if progress.total else None, "", doing)

    def _show_status(self, status: Status) -> None:
        in_unicode = can_write(self._out, FULL)
        line = status_line(status, columns_of(self._out), in_unicode)
        line = writable(self._out, printable(line))
        self._out.write(f"\r{line}{self._blank(width(line))}")
        self._out.flush()
        self._shown = line

    def _blank(self, start: int) -> str:
        """Spaces over what is shown from this column on, but not beyond the terminal's width.

        It may have become narrower, and spaces beyond its width would begin another line.
        """
        return " " * (min(width(self._shown), columns_of(self._out) - 1) - start)

    def _part_of(self, progress: Progress) -> _Part:
        """The part that a process is at; it begins with its first progress."""
        key = progress.stage, progress.part
        part = self._parts.get(progress.process)
        if part is None or part.key != key or part.is_over:
            part = self._parts[progress.process] = _Part(key, time.monotonic())
        part.is_over = 0 < progress.total <= progress.done
        return part

    def _write(self, text: str, to: TextIO, style: Style | None = None, then: str = "") -> None:
        """Write a line: the text, in a style where the stream has colours, and what follows it."""
        self.finish_bar()
        text, then = (writable(to, printable(one)) for one in (text, then))
        if text.startswith(CAUTION) and is_capable(to):
            text = _wrapped(text, columns_of(to) - 1)
        if has_color(to):
            text = _painted(text, style)
        print(text + then, file=to, flush=True)

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

    def _show_plain(self, progress: Progress, part: _Part, outlook: Outlook | None) -> None:
        """Tell how far a part is, now and then: the more are at work, the less often each."""
        now = time.monotonic()
        at_work = sum(not one.is_over for one in self._parts.values())
        if part.is_over or now - part.told < PLAIN_INTERVAL_S * at_work:
            return
        part.told = now
        text = f"      {progress.part}: {_plain(progress, now - part.started)}"
        if outlook and outlook.left:
            text += f"; job: {outlook.left}"
        if self._has_bar:
            self._keep(text)
        else:
            self.line(text)


@dataclass
class _Part:
    """A part of the work of one process."""

    key: tuple[str, str]
    """Its stage and name."""
    started: float
    """When it began, on the monotonic clock."""
    told: float = field(init=False)
    """When it was last told of."""
    is_over: bool = False

    def __post_init__(self) -> None:
        self.told = self.started


def _painted(text: str, style: Style | None) -> str:
    """The text in its style; the first word of a note is marked whatever the style."""
    if text.startswith(CAUTION):
        return painted(CAUTION, Style.CAUTION) + text.removeprefix(CAUTION)
    return painted(text, style) if style and text else text


def _wrapped(text: str, columns: int) -> str:
    """A note in lines that end between words; it is told in one line where nobody reads it now."""
    if columns < LEAST_WRAPPED:
        return text
    return textwrap.fill(
        text,
        columns,
        subsequent_indent=" " * (len(CAUTION) + 1),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _done(progress: Progress) -> str:
    of = f" of {progress.total:,}" if progress.total else ""
    return f"{progress.done:,}{of} {progress.unit}"


def _plain(progress: Progress, elapsed_s: float) -> str:
    text = _done(progress)
    if progress.done:
        rate = progress.done / elapsed_s
        text += f", {rate:.1f} a second"
        if progress.total:
            text += f", {clock((progress.total - progress.done) / rate)} left"
    return f"{text}, {progress.note}" if progress.note else text
