"""Writes rows as they were read, with their labels and probabilities behind them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from nlijob.disk import disk_faults
from nlijob.streams import check_output, has_no_reader
from nlijob.use.rows import FaultError, Format, InputRow

LABEL = "predicted_label"
PROBABILITY = "probability_"


class NoReaderError(Exception):
    """Nobody reads standard output any longer, so that there is nothing left to do."""


@dataclass(frozen=True)
class AddedColumns:
    """The columns behind a row's own."""

    label: str
    probabilities: tuple[str, ...]
    """The column of each label's probability, in label order."""

    @classmethod
    def beside(cls, own: Sequence[str], label_names: Sequence[str]) -> AddedColumns:
        """Names that differ from the input's own: where one is taken, all end in _2, or _3, ..."""
        number = 1
        while True:
            end = "" if number == 1 else f"_{number}"
            probabilities = tuple(f"{PROBABILITY}{name}{end}" for name in label_names)
            added = cls(f"{LABEL}{end}", probabilities)
            if not {*own} & {*added.names}:
                return added
            number += 1

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, in order."""
        return (self.label, *self.probabilities)


class RowWriter:
    """Puts the added columns behind a row's own text."""

    def __init__(self, kind: Format, columns: AddedColumns, label_names: Sequence[str]) -> None:
        self._kind = kind
        self._columns = columns
        self._labels = label_names

    def header(self, header: InputRow) -> str:
        """The line that names the columns."""
        return self._line(header, self._columns.names)

    def row(self, row: InputRow, predicted: int, probabilities: Sequence[float]) -> str:
        """A row with its label. Raises FaultError if it has a key of an added column already."""
        if self._kind != "jsonl":
            return self._line(row, (self._labels[predicted], *map(repr, probabilities)))
        values = (self._labels[predicted], *probabilities)
        if LABEL in row.text or PROBABILITY in row.text or "\\" in row.text:  # perhaps as a key
            own = json.loads(row.text)
            if taken := [name for name in self._columns.names if name in own]:
                raise FaultError(f"it has the key {taken[0]!r} of a column that is added")
        added = _json(dict(zip(self._columns.names, values, strict=True)))
        return f"{row.text[:-1]}, {added[1:]}{row.end or chr(10)}"

    def _line(self, row: InputRow, values: Sequence[str]) -> str:
        if self._kind == "csv":
            return ",".join([row.text, *map(_csv, values)]) + (row.end or "\n")
        plain = (" ".join(value.split()) for value in values)  # a tab would end the field
        return "\t".join([row.text, *plain]) + (row.end or "\n")


class Output:
    """Where rows are written: standard output, or a file that is made with its first row."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self.rows = 0
        """Rows written so far."""

    @property
    def place(self) -> str:
        """What messages call it."""
        return "standard output" if self._path is None else str(self._path)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None and self._path is not None:
            with disk_faults(self._path):
                self._file.close()

    def write(self, lines: Iterator[str] | Sequence[str], rows: int = 0) -> None:
        """Write lines, of which `rows` are rows.

        Raises NoReaderError where standard output is a pipe that nobody reads, and DiskError.
        """
        content = "".join(lines).encode("utf-8")
        if self._path is None:
            self._write_to_standard_output(content)
        else:
            with disk_faults(self._path):
                if self._file is None:
                    self._file = self._path.open("wb")
                self._file.write(content)
                self._file.flush()
        self.rows += rows

    def _write_to_standard_output(self, content: bytes) -> None:
        try:
            sys.stdout.buffer.write(content)
            check_output()
        except BrokenPipeError as error:
            raise NoReaderError from error
        if has_no_reader():
            raise NoReaderError


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _csv(value: str) -> str:
    if any(mark in value for mark in ',"\r\n'):
        return '"' + value.replace('"', '""') + '"'
    return value
