"""JSON: one object a line (JSON Lines), or one array of objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nlijob.data.table import CHANGED, Content, Faults, Row, Survey, refuse_lines, shown
from nlijob.data.text import text_blocks, text_lines
from nlijob.errors import NotAvailableError

HINT = "a .jsonl file has one whole JSON object on each line, with a key for each column"
ARRAY_HINT = "a file that begins with [ is read as one array of objects with a key for each column"
LARGEST_OBJECT_FILE = 64 * 1024**2
"""Bytes of a file that is looked at as a whole to explain why it is not JSON Lines."""
LONGEST_LITERAL = 12
"""Characters of a JSON token other than a text that may be cut off at the end of what was read."""


@dataclass(frozen=True)
class JsonRows:
    """The rows of a .jsonl or .json file."""

    path: Path

    def check(self, survey: Survey) -> Content:
        """Read all rows. Raises NotAvailableError that names the malformed lines."""
        rows, lines, faults = 0, 0, Faults()
        columns: tuple[str, ...] = ()
        for line, row in self._rows():
            lines = line
            if isinstance(row, str):
                faults.add(f"line {line}: {row}")
            elif row is not None:
                if not rows:
                    columns = tuple(map(str, row))
                    survey.begin(columns)
                survey.see(row)
                rows += 1
        if not self._is_array:
            if faults.count or rows == 1:
                _refuse_one_value(self.path, is_row=not faults.count)
            if faults.count:
                refuse_lines(self.path, faults, HINT)
        return Content(rows, columns, blank_lines=0 if self._is_array else lines - rows)

    def rows(self, wanted: Iterable[int]) -> Iterator[tuple[int, Row]]:
        """The wanted rows with their lines; other lines are not parsed."""
        asked = iter(wanted)
        target = next(asked, None)
        if self._is_array:
            for number, (line, value) in enumerate(_array(self.path)):
                if number == target:
                    yield line, value
                    target = next(asked, None)
            return
        number = -1
        for line, text in _json_lines(self.path):
            if target is None:
                return
            number += bool(text)
            if text and number == target:
                row = _row(text)
                yield CHANGED if isinstance(row, str) else (line, row)
                target = next(asked, None)

    @cached_property
    def _is_array(self) -> bool:
        return _Text(self.path).next_character() == "["

    def _rows(self) -> Iterator[tuple[int, Row | str | None]]:
        """Each line's number with its row, its fault, or None if it is blank."""
        if self._is_array:
            yield from _array(self.path)
        else:
            for line, text in _json_lines(self.path):
                yield line, _row(text) if text else None


def _json_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The number and content of each line, "" if it is blank. A line may end in CR, LF or both."""
    number = 0
    for raw in text_lines(path):
        for line in raw.removesuffix("\n").removesuffix("\r").split("\r"):
            number += 1
            yield number, line if line.strip() else ""


def _row(line: str) -> Row | str:
    """The object in a line, or what is wrong with it."""
    try:
        row = DECODER.decode(line)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at character {error.colno}"
    except (RepeatedKeyError, ValueError, RecursionError) as error:
        return _unusable(error)
    return row if isinstance(row, dict) else "not an object with columns"


def _unusable(error: Exception) -> str:
    """What is wrong with JSON that the grammar allows."""
    if isinstance(error, RepeatedKeyError):
        return f"not usable: the key {shown(error.args[0])} occurs twice in an object"
    if isinstance(error, RecursionError):
        return "not usable: lists or objects are nested too deeply"
    return "not usable: a number has too many digits"  # Python reads up to 4,300 of them


class RepeatedKeyError(ValueError):
    """An object has a key twice; the parser would silently take the last value."""


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return row


DECODER = json.JSONDecoder(object_pairs_hook=_unique)
"""Reads JSON in which no object has a key twice; raises RepeatedKeyError on others."""

# ---------------------------------------------------------------- one array


def _array(path: Path) -> Iterator[tuple[int, Row]]:
    """The line and the object of each element of a file that is one JSON array.

    Raises NotAvailableError at the first fault: where an array is malformed, its rest has no sure
    meaning.
    """
    text = _Text(path)
    text.skip("[")
    is_first = True
    while text.next_character() != "]":
        if not is_first:
            text.skip(",")
        is_first = False
        if text.next_character() != "{":
            raise text.fault("an element is not an object with columns")
        line = text.line
        yield line, text.object()
    text.skip("]")
    if text.next_character():
        raise text.fault("something follows the end of the array")


class _Text:
    """A file's text with a position, of which only what is needed is in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._blocks = text_blocks(path)
        self._text = ""
        self._at = 0
        self.line = 1

    def next_character(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            start = self._at
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            self.line += self._text.count("\n", start, self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def skip(self, expected: str) -> None:
        """Go behind the next character, which must be `expected`."""
        if self.next_character() != expected:
            raise self.fault(f"not JSON: {expected!r} is missing")
        self._at += 1

    def object(self) -> dict[str, Any]:
        """The object that begins here; the position is behind it afterwards."""
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.pos >= len(self._text) - LONGEST_LITERAL
                if (cut or error.msg.startswith("Unterminated")) and self._more():
                    continue
                raise self.fault(f"not JSON: {error.msg}", error.pos) from error
            except (ValueError, RecursionError) as error:
                raise self.fault(_unusable(error)) from error
            self.line += self._text.count("\n", self._at, end)
            self._at = end
            return dict(value)

    def fault(self, what: str, at: int | None = None) -> NotAvailableError:
        line = self.line + (0 if at is None else self._text.count("\n", self._at, at))
        return NotAvailableError(f"{self._path} cannot be read: line {line}: {what}", ARRAY_HINT)

    def _more(self) -> bool:
        """Read on, at least as much again as is there, so that a long object costs no more."""
        rest, size = [self._text[self._at :]], 0
        for block in self._blocks:
            rest.append(block)
            size += len(block)
            if size >= len(rest[0]):
                break
        self._text, self._at = "".join(rest), 0
        return size > 0


# ---------------------------------------------------------------- one object


def _refuse_one_value(path: Path, is_row: bool) -> None:
    """Raise NotAvailableError if the whole file is one object that holds rows.

    `is_row`: the file is a single line with an object, which can also be a row.
    """
    if path.stat().st_size > LARGEST_OBJECT_FILE:
        return
    try:
        value = json.loads("".join(text_lines(path)))
    except (ValueError, RecursionError):
        return
    if isinstance(value, dict):
        _refuse_object_of_rows(path, value, is_row)


def _refuse_object_of_rows(path: Path, value: dict[str, Any], is_row: bool) -> None:
    nested = [key for key, item in value.items() if isinstance(item, list | dict)]
    of_rows = [key for key in nested if _holds_rows(value[key])]
    if is_row and not of_rows and (not nested or len(nested) < len(value)):
        return
    hint = HINT
    if of_rows:
        hint = (
            f"write each row as a line: jq -c '.[{json.dumps(of_rows[0])}][]' {path.name} > "
            f"lines{path.suffix}"
        )
    raise NotAvailableError(
        f"{path} cannot be read: the file is one JSON object "
        f"({', '.join(map(shown, value))}), not one object a line",
        hint,
    )


def _holds_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)
