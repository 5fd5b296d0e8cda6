"""Reads premise and hypothesis pairs row by row, in constant memory, and names malformed rows.

Each row keeps its own text, so that it can be written again as it was, with more columns behind it.
After a malformed row, reading goes on in the line after the one in which that row begins.
"""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

from nlijob.analysis.wording import plural
from nlijob.data.json_lines import DECODER, RepeatedKeyError
from nlijob.data.table import shown
from nlijob.data.text import BYTE_ORDER_MARKS, KINDS, LONE_SURROGATE
from nlijob.errors import NotAvailableError, first_line

Format = Literal["jsonl", "csv", "tsv"]
ENDINGS: Mapping[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
LONGEST_LINE = 16 * 1024**2
"""Bytes; a longer line is taken for a file of another kind."""
SEARCHED_LINES = 1_000
"""Lines among which a first whole JSON object is looked for, which names the columns."""
MOST_LINES = 1_000
"""Lines that a quoted CSV field may reach over; beyond them its quote counts as never closed."""
QUOTED = re.compile(r'"((?:[^"]++|"")*+)"')
PLAIN = re.compile(r'[^",\r\n]*+')


@dataclass(slots=True)
class InputRow:
    """A row that can be labelled."""

    line: int
    """Line of the input in which it begins, from 1."""
    text: str
    """The row as it stands in the input, without the end of its last line."""
    end: str
    """The end of its last line."""
    premise: str
    hypothesis: str


@dataclass(slots=True)
class BadRow:
    """A row that cannot be labelled."""

    line: int
    fault: str
    """What is wrong, in words."""


class FaultError(Exception):
    """A row is malformed; the message says how."""


@dataclass(slots=True)
class Line:
    """A line of the input."""

    number: int
    """From 1."""
    text: str
    """Without its end."""
    end: str
    """"\\n", "\\r\\n", or "" for a last line without one."""
    fault: str = ""
    """Why it cannot be read; `text` is then empty."""


class Lines:
    """The lines of a UTF-8 stream. Lines that were taken can be put back."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        """`name`: what messages call the stream."""
        self.name = name
        self.bytes_read = 0
        self._stream = stream
        self._number = 0
        self._back: deque[Line] = deque()

    def take(self) -> Line | None:
        """The next line; None at the end. Raises NotAvailableError if this is no text file."""
        if self._back:
            return self._back.popleft()
        raw = self._read()
        if not raw:
            return None
        self._number += 1
        self.bytes_read += len(raw)
        if self._number == 1:
            self._refuse_other_kinds(raw)
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if len(raw) == LONGEST_LINE and not raw.endswith(b"\n"):
            self._pass_over_line()
            return Line(self._number, "", "\n", f"longer than {LONGEST_LINE:,} bytes")
        return self._decoded(raw)

    def put_back(self, lines: Sequence[Line]) -> None:
        """Let `take` return these lines again, in their order."""
        self._back.extendleft(reversed(lines))

    def _read(self) -> bytes:
        """The next line, or the first part of one that is too long; b"" at the end."""
        try:
            return self._stream.readline(LONGEST_LINE)
        except (OSError, EOFError, zlib.error) as error:  # the last two of a compressed file
            raise NotAvailableError(
                f"{self.name} cannot be read after line {self._number}: {first_line(error)}",
                "the file is damaged, or what it is read from has failed",
            ) from error

    def _decoded(self, raw: bytes) -> Line:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            wrong = f"byte {error.start + 1} (0x{raw[error.start]:02x}) is not UTF-8"
            return Line(self._number, "", "\n", wrong)
        content = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
        return Line(self._number, content, text[len(content) :])

    def _pass_over_line(self) -> None:
        while (raw := self._read()) and not raw.endswith(b"\n"):
            self.bytes_read += len(raw)
        self.bytes_read += len(raw)

    def _refuse_other_kinds(self, raw: bytes) -> None:
        marks = {**BYTE_ORDER_MARKS, b"\0": "UTF-16"}
        other = next((name for mark, name in marks.items() if raw.startswith(mark)), None)
        if other is None and 0 in raw[:2]:
            other = "UTF-16"
        if other is not None:
            raise NotAvailableError(
                f"{self.name} cannot be read: it is {other}, not UTF-8",
                f"convert it: iconv -f {other} -t UTF-8",
            )
        for start, kind in KINDS.items():
            if raw.startswith(start) or raw[:99].lstrip().lower().startswith(start):
                raise NotAvailableError(
                    f"{self.name} cannot be read: it is {kind}",
                    "give text in UTF-8; a file is unpacked if its name ends in .gz or .zst",
                )


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold the two texts."""

    premise: str
    hypothesis: str


Find = Callable[[Sequence[str]], Columns | None]
"""The two columns among those of an input; None if they are not there."""


class RowReader:
    """The rows of a stream in one of the formats."""

    def __init__(self, lines: Lines, asked: Columns, find: Find) -> None:
        """`asked`: the two columns, unless `find` finds others among those of the input."""
        self.lines = lines
        self.columns = asked
        self._find = find
        self.names: tuple[str, ...] = ()
        """Columns of the input, of its first row where rows name their own."""
        self.header: InputRow | None = None
        """The line that names the columns, where the format has one."""

    def open(self) -> None:
        """Read as far as the names of the columns. Raises NotAvailableError without the two."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[InputRow | BadRow]:
        """The rows after `open`; lines without content are passed over."""
        while (line := self.lines.take()) is not None:
            if line.fault:
                yield BadRow(line.number, line.fault)
            elif line.text.strip(" "):  # tabs may be the ends of empty fields
                try:
                    yield self._row(line)
                except FaultError as error:
                    yield BadRow(line.number, str(error))

    def _row(self, line: Line) -> InputRow:
        """The row that begins in a line. Raises FaultError; further lines are then put back."""
        raise NotImplementedError

    def _choose_columns(self) -> None:
        found = self._find(self.names)
        if found is not None:
            self.columns = found
            return
        asked = self.columns
        missing = [name for name in (asked.premise, asked.hypothesis) if name not in self.names]
        raise NotAvailableError(
            f"{self.lines.name}: no column {' and no column '.join(map(shown, missing))}; the "
            f"columns are {', '.join(map(shown, self.names))}",
            "name the two columns with --premise-column and --hypothesis-column"
            + ("; the first line must name the columns" if self.header else ""),
        )


class JsonLines(RowReader):
    """One JSON object a line."""

    def open(self) -> None:
        """Read as far as a first whole object, if there is one, and put the lines back."""
        passed: list[Line] = []
        while len(passed) < SEARCHED_LINES and (line := self.lines.take()) is not None:
            passed.append(line)
            try:
                value = {} if line.fault or not line.text.strip() else _object(line.text)
            except FaultError:
                if len(passed) == 1:
                    self._refuse_array(line.text)
                continue
            if value:
                self.names = tuple(value)
                self._choose_columns()
                break
        self.lines.put_back(passed)

    def _refuse_array(self, text: str) -> None:
        if text.lstrip().startswith("["):
            raise NotAvailableError(
                f"{self.lines.name} cannot be read: it is one JSON array, not one object a line",
                "write each of its objects as a line: jq -c '.[]' FILE | nlijob predict RUN "
                "--format jsonl",
            )

    def _row(self, line: Line) -> InputRow:
        value = _object(line.text)
        texts = []
        for column in (self.columns.premise, self.columns.hypothesis):
            if column not in value:
                raise FaultError(f"it has no key {shown(column)}")
            text = value[column]
            if not isinstance(text, str):
                what = "missing (null)" if text is None else f"{shown(text)}, not a text"
                raise FaultError(f"{shown(column)} is {what}")
            if LONE_SURROGATE.search(text):
                raise FaultError(f"{shown(column)} has half of a character: {shown(text)}")
            texts.append(text)
        return InputRow(line.number, line.text.rstrip(), line.end, *texts)


class Separated(RowReader):
    """A line that names the columns, then a line, or in CSV several, for each row."""

    def __init__(self, lines: Lines, asked: Columns, find: Find, separator: str) -> None:
        super().__init__(lines, asked, find)
        self._separator = separator
        self._places = (0, 0)
        """Positions of the two columns in a row."""

    def open(self) -> None:
        """Read the line that names the columns."""
        line = self.lines.take()
        while line is not None and not line.fault and not line.text.strip():
            line = self.lines.take()
        if line is None:
            return
        try:
            if line.fault:
                raise FaultError(line.fault)
            fields, taken = self._fields(line)
        except FaultError as error:
            raise NotAvailableError(
                f"{self.lines.name} cannot be read: line {line.number}, which names the columns: "
                f"{error}"
            ) from error
        self.names = tuple(fields)
        self.header = InputRow(line.number, *_joined(taken), "", "")
        self._choose_columns()
        self._refuse_repeated()
        index = self.names.index
        self._places = index(self.columns.premise), index(self.columns.hypothesis)

    def _row(self, line: Line) -> InputRow:
        fields, taken = self._fields(line)
        try:
            if len(fields) != len(self.names):
                raise FaultError(
                    f"{plural(len(fields), 'field')}, but the header has {len(self.names)}"
                )
            premise, hypothesis = (fields[place] for place in self._places)
            if "\0" in premise or "\0" in hypothesis:
                raise FaultError("a NUL character")
        except FaultError:
            self.lines.put_back(taken[1:])
            raise
        return InputRow(line.number, *_joined(taken), premise, hypothesis)

    def _fields(self, line: Line) -> tuple[Sequence[str], list[Line]]:
        """The fields of the row that begins in a line, and the lines that it takes."""
        if "\r" in line.text and self._separator == "\t":
            raise FaultError("a carriage return without a line feed")
        if self._separator == "\t" or ('"' not in line.text and "\r" not in line.text):
            return line.text.split(self._separator), [line]
        taken = [line]
        quotes = line.text.count('"')
        while quotes % 2 and len(taken) < MOST_LINES:
            following = self.lines.take()
            if following is None or following.fault:
                taken += [following] if following else []
                break
            taken.append(following)
            quotes += following.text.count('"')
        try:
            if quotes % 2:
                raise FaultError("a quoted field that is never closed")
            return _quoted_fields(_joined(taken)[0]), taken
        except FaultError:
            self.lines.put_back(taken[1:])
            raise

    def _refuse_repeated(self) -> None:
        for column in {*vars(self.columns).values()}:
            if self.names.count(column) > 1:
                raise NotAvailableError(
                    f"{self.lines.name}: several columns are named {shown(column)}",
                    "rename or remove all but one of them",
                )


def row_reader(kind: Format, lines: Lines, asked: Columns, find: Find) -> RowReader:
    """The reader of a format; see `RowReader` for the columns."""
    if kind == "jsonl":
        return JsonLines(lines, asked, find)
    return Separated(lines, asked, find, "," if kind == "csv" else "\t")


def _joined(lines: Sequence[Line]) -> tuple[str, str]:
    """The text of a row that takes several lines, and the end of the last one."""
    text = "".join(line.text + line.end for line in lines[:-1]) + lines[-1].text
    return text, lines[-1].end


def _quoted_fields(text: str) -> list[str]:
    """The fields of a CSV row, strictly as in RFC 4180. Raises FaultError."""
    fields: list[str] = []
    position = 0
    while True:
        is_quoted = text.startswith('"', position)
        match = (QUOTED if is_quoted else PLAIN).match(text, position)
        if match is None:
            raise FaultError("a quoted field that is never closed")
        fields.append(match[1].replace('""', '"') if is_quoted else match[0])
        position = match.end()
        if position == len(text):
            return fields
        if text[position] != ",":
            raise FaultError(
                "text after the closing quote of a field"
                if is_quoted
                else "a quote within a field that is not in quotes"
                if text[position] == '"'
                else "a carriage return without a line feed"
            )
        position += 1


def _object(text: str) -> dict[str, Any]:
    """The JSON object in a line. Raises FaultError."""
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise FaultError(f"not JSON: {error.msg} at character {error.colno}") from error
    except RepeatedKeyError as error:
        raise FaultError(f"the key {shown(error.args[0])} occurs twice in an object") from error
    except ValueError as error:  # Python reads whole numbers of up to 4,300 digits
        raise FaultError("a number has too many digits") from error
    except RecursionError as error:
        raise FaultError("lists or objects are nested too deeply") from error
    if not isinstance(value, dict):
        raise FaultError("not a JSON object with a key for each column")
    return value
