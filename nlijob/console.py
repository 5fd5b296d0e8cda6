"""What a person sees while the job runs: stage lines, and a bar where there is a terminal.

Without a terminal (container logs) every line is plain, and a long part reports every few seconds.
"""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

from nlijob.records import Progress

PLAIN_INTERVAL_S = 15.0


class Console:
    """Writes the job's progress to `out` (standard error by default, so that stdout stays free)."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._is_terminal = self._out.isatty()
        self._bar: tqdm[Any] | None = None
        self._current: tuple[str, str] | None = None
        self._part_started = 0.0
        self._last_plain = 0.0

    def line(self, text: str) -> None:
        """Write one line, below any bar."""
        self.finish_bar()
        print(text, file=self._out, flush=True)

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
        if self._is_terminal:
            self._show_bar(progress)
        else:
            self._show_plain(progress)

    def finish_bar(self) -> None:
        """End the bar in sight, if any."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._current = None

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
        text += f", {rate:.1f} a second, {duration_text(left_s)} left"
    return f"{text}, {progress.note}" if progress.note else text


def duration_text(seconds: float) -> str:
    """Seconds for people: "0.4 s", "12 s", "3 min 05 s", "2 h 01 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
