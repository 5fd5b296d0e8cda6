"""Labels rows with the GPU side: reads them in chunks, hands these over, and writes them again.

While the GPU side scores a chunk, this process reads the next ones and writes the ones before. At
most `AHEAD` chunks are under way, so memory does not grow with the input.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nlijob import records
from nlijob.analysis.wording import plural
from nlijob.errors import NotAvailableError
from nlijob.launch import GpuSide
from nlijob.records.use import Chunk, ChunkCount, ScoredChunk
from nlijob.rundir import write_text
from nlijob.use.output import AddedColumns, Output, RowWriter
from nlijob.use.rows import BadRow, FaultError, Format, InputRow, RowReader
from nlijob.use.workspace import Workspace

CHUNK_ROWS = 8192
"""Rows that are sorted by length and scored together."""
CHUNK_CHARACTERS = 16 * 1024**2
"""A chunk of long rows ends earlier."""
AHEAD = 3
"""Chunks that are under way at the same time."""
SHOWN_FAULTS = 20
"""Rows left out that are named one by one; the others are counted."""
POLL_S = 0.005

OnError = Literal["stop", "skip"]


@dataclass
class Part:
    """A chunk of the input as this process keeps it."""

    number: int
    """From 1; 0 for one without a row to label."""
    rows: list[InputRow | BadRow]
    bytes_read: int
    """How far the input is read with it."""

    @property
    def whole(self) -> list[InputRow]:
        """The rows that can be labelled."""
        return [row for row in self.rows if isinstance(row, InputRow)]


@dataclass
class Counts:
    """What became of the rows."""

    written: int = 0
    left_out: int = 0
    began_s: float = field(default_factory=time.monotonic)
    first_s: float | None = None
    """When the first chunk was written."""
    first_rows: int = 0
    """How many rows it had."""
    last_s: float = 0.0
    """When the last chunk so far was written."""

    def rate(self) -> float | None:
        """Rows per second after the first chunk; None where there was only one."""
        if self.first_s is None or self.written == self.first_rows:
            return None
        return (self.written - self.first_rows) / (self.last_s - self.first_s)


class Labelling:
    """The rows of one input on their way to one output."""

    def __init__(
        self,
        reader: RowReader,
        output: Output,
        kind: Format,
        label_names: tuple[str, ...],
        on_error: OnError,
        warn: Callable[[str], None],
        progress: Callable[[int, Counts], None],
    ) -> None:
        """`warn` gets a line for each row that is left out; `progress` the bytes read so far."""
        self._reader = reader
        self._output = output
        self.columns = AddedColumns.beside(reader.names, label_names)
        self._writer = RowWriter(kind, self.columns, label_names)
        self._on_error = on_error
        self._warn = warn
        self._progress = progress
        self.counts = Counts()
        self._unreadable: NotAvailableError | None = None

    def parts(self) -> Iterator[Part]:
        """The input in chunks, as far as it can be read; then see `check_input`.

        With `stop`, the first malformed row is the last one.
        """
        number = 0
        rows: list[InputRow | BadRow] = []
        characters = 0
        for row in self._readable_rows():
            rows.append(row)
            characters += len(row.text) if isinstance(row, InputRow) else 0
            if len(rows) == CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
                part = self._part(number + 1, rows)
                number = part.number or number
                yield part
                rows, characters = [], 0
        if rows:
            yield self._part(number + 1, rows)

    def check_input(self) -> None:
        """Raise NotAvailableError if the input could not be read to its end."""
        if self._unreadable is not None:
            rows = plural(self.counts.written, "row")
            raise NotAvailableError(
                self._unreadable.message,
                f"{self._unreadable.hint}; {rows} are written to {self._output.place}",
            )

    def _readable_rows(self) -> Iterator[InputRow | BadRow]:
        try:
            for row in self._reader:
                yield row
                if isinstance(row, BadRow) and self._on_error == "stop":
                    return
        except NotAvailableError as error:  # the rows before are labelled first
            self._unreadable = error

    def _part(self, number: int, rows: list[InputRow | BadRow]) -> Part:
        has_rows = any(isinstance(row, InputRow) for row in rows)
        return Part(number if has_rows else 0, rows, self._reader.lines.bytes_read)

    def write_header(self) -> None:
        """Write the line that names the columns, where the format has one."""
        if self._reader.header is not None:
            self._output.write([self._writer.header(self._reader.header)])

    def write(self, part: Part, scored: ScoredChunk) -> None:
        """Write a chunk's rows.

        Raises NotAvailableError at a row that has no label, with `stop`; the rows before it are
        written.
        """
        faults = {fault.row: fault.text for fault in scored.unlabelled}
        lines: list[str] = []
        place = -1
        bad: BadRow | None = None
        for row in part.rows:
            if isinstance(row, InputRow):
                place += 1
                bad = BadRow(row.line, faults[place]) if place in faults else None
                if bad is None:
                    labels = scored.predicted[place], scored.probabilities[place]
                    bad = self._add(lines, row, *labels)
            else:
                bad = row
            if bad is not None:
                self._leave_out(bad)
                if self._on_error == "stop":
                    break
        self._output.write(lines, len(lines))
        self._count(part, len(lines))
        if bad is not None and self._on_error == "stop":
            raise self._stopped(bad)

    def _add(
        self, lines: list[str], row: InputRow, predicted: int, probabilities: tuple[float, ...]
    ) -> BadRow | None:
        try:
            lines.append(self._writer.row(row, predicted, probabilities))
        except FaultError as error:
            return BadRow(row.line, str(error))
        return None

    def _leave_out(self, bad: BadRow) -> None:
        self.counts.left_out += 1
        if self._on_error == "skip" and self.counts.left_out <= SHOWN_FAULTS:
            self._warn(f"left out: line {bad.line}: {bad.fault}")
        elif self._on_error == "skip" and self.counts.left_out == SHOWN_FAULTS + 1:
            self._warn("left out: more rows, which are counted and no longer named")

    def _count(self, part: Part, rows: int) -> None:
        counts = self.counts
        counts.written += rows
        counts.last_s = time.monotonic()
        if counts.first_s is None:
            counts.first_s, counts.first_rows = counts.last_s, rows
        self._progress(part.bytes_read, counts)

    def _stopped(self, bad: BadRow) -> NotAvailableError:
        rows = plural(self.counts.written, "row")
        return NotAvailableError(
            f"{self._reader.lines.name}, line {bad.line}: {bad.fault}",
            f"the {rows} before it are written to {self._output.place}; mend or remove the line, "
            "or leave such rows out with --on-error skip",
        )


def label_rows(labelling: Labelling, gpu_side: GpuSide, place: Workspace) -> None:
    """Label every row of the input.

    The GPU side must have its task. Raises what it reports, and NotAvailableError at a malformed
    row where these are not left out, or where the input cannot be read to its end.
    """
    labelling.write_header()
    under_way: deque[Part] = deque()
    chunks = 0
    for part in labelling.parts():
        if part.number:
            chunks = part.number
            rows = part.whole
            texts = tuple(row.premise for row in rows), tuple(row.hypothesis for row in rows)
            _hand_over(place.chunk(part.number), Chunk(*texts).text())
        under_way.append(part)
        if len(under_way) > AHEAD:
            _finish(labelling, under_way.popleft(), gpu_side, place)
    write_text(place.count, records.dump(ChunkCount(chunks)))
    while under_way:
        _finish(labelling, under_way.popleft(), gpu_side, place)
    gpu_side.follow(lambda _: None)
    labelling.check_input()


def _finish(labelling: Labelling, part: Part, gpu_side: GpuSide, place: Workspace) -> None:
    scored = _scored(part.number, gpu_side, place) if part.number else ScoredChunk((), (), ())
    labelling.write(part, scored)


def _scored(number: int, gpu_side: GpuSide, place: Workspace) -> ScoredChunk:
    """The labels of a chunk, once the GPU side has them. Raises the error that it reports."""
    file = place.scored(number)
    while not file.exists():
        if not gpu_side.is_at_work and not file.exists():
            gpu_side.raise_outcome()
            raise AssertionError(f"the GPU side ended without chunk {number}")
        time.sleep(POLL_S)
    scored = records.read(ScoredChunk, file)
    file.unlink()
    return scored


def _hand_over(file: Path, text: str) -> None:
    """Write a file that appears whole; a chunk need not be safe on disk."""
    beside = file.with_suffix(".part")
    beside.write_text(text, encoding="utf-8")
    beside.rename(file)
