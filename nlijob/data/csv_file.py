"""Comma-separated values, read strictly as in RFC 4180: nothing is guessed.

The standard library's csv module accepts a quote anywhere and rows of any length. A stray quote
then swallows the rows up to the next one, and a comma too many moves texts to other columns, both
silently. It also refuses fields of more than 131,072 characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nlijob.analysis.wording import plural
from nlijob.data.table import Table, refuse_lines, refuse_repeated_columns
from nlijob.data.text import read_text
from nlijob.errors import NotAvailableError

HINT = (
    "put each field that contains a comma, a quote or a line break in double quotes, and double "
    "the quotes within it; or convert the file to JSON Lines"
)
QUOTED = re.compile(r'"((?:[^"]++|"")*+)"')
PLAIN = re.compile(r'[^",\r\n]*+')
LINE_END = re.compile(r"\r?(?=\n|\Z)")
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class Record:
    """A row of the table; it spans several lines of the file if a field has line breaks."""

    line: int
    """Where it begins, from 1."""
    fields: Sequence[str]
    fields_over_lines: int = 0
    commas: frozenset[int] = frozenset()
    """Numbers of commas in its lines, where it has several lines."""
    fault: str = ""
    """Why it cannot be read; `fields` is then empty."""


def read_csv(path: Path) -> Table:
    """The rows of a .csv file, whose first line names the columns. Blank lines are skipped.

    Raises NotAvailableError that names the malformed lines.
    """
    text = read_text(path)
    _refuse_other_separators(path, text)
    records, blank_lines = _records(text)
    if not records:
        return Table([])
    header, *body = records
    faults = [(record.line, fault) for record in records if (fault := _fault(record, header))]
    if faults:
        refuse_lines(path, faults, HINT)
    refuse_repeated_columns(path, header.fields)
    return Table(
        [dict(zip(header.fields, record.fields, strict=True)) for record in body],
        [record.line for record in body],
        blank_lines,
        tuple(record.line for record in body for _ in range(record.fields_over_lines)),
        tuple(record.line for record in body if record.commas == {len(header.fields) - 1}),
    )


def _refuse_other_separators(path: Path, text: str) -> None:
    header = text.lstrip().partition("\n")[0]
    found = [name for mark, name in OTHER_SEPARATORS.items() if mark in header]
    if found and "," not in header:
        raise NotAvailableError(
            f"{path} cannot be read: its columns are separated by {found[0]}, not commas",
            "save it with commas, or convert it to JSON Lines",
        )


def _fault(record: Record, header: Record) -> str:
    """What is wrong with a record; "" if nothing is."""
    if record.fault:
        return record.fault
    if any("\0" in field for field in record.fields):
        return "a NUL character"
    expected = 0 if header.fault else len(header.fields)
    if expected and len(record.fields) != expected:
        return f"{plural(len(record.fields), 'field')}, but the header has {expected}"
    return ""


def _records(text: str) -> tuple[list[Record], int]:
    """All records, and the number of blank lines between them.

    After a malformed record, reading goes on in the line after the one in which it begins.
    """
    records: list[Record] = []
    blank_lines = 0
    position, line = 0, 1
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        raw = text[position:end].removesuffix("\r")
        if not raw.strip():
            blank_lines += 1
        elif '"' in raw:
            record, after = _quoted_record(text, position, line)
            records.append(record)
            end = end if record.fault else after
        elif "\r" in raw:
            records.append(Record(line, (), fault="a carriage return without a line feed"))
        else:
            records.append(Record(line, raw.split(",")))
        line += 1 + text.count("\n", position, end)
        position = end + 1
    return records, blank_lines


def _quoted_record(text: str, start: int, line: int) -> tuple[Record, int]:
    """The record that begins at `start`, and the position of the end of its last line."""
    fields: list[str] = []
    over_lines = 0
    position = start
    while True:
        opened = text.startswith('"', position)
        match = (QUOTED if opened else PLAIN).match(text, position)
        if match is None:
            return Record(line, (), fault="a quoted field that is never closed"), position
        fields.append(match[1].replace('""', '"') if opened else match[0])
        over_lines += "\n" in match[0] or "\r" in match[0]
        position = match.end()
        if text.startswith(",", position):
            position += 1
        elif end := LINE_END.match(text, position):
            lines = text[start : end.end()].split("\n") if over_lines else ()
            commas = frozenset(line.count(",") for line in lines)
            return Record(line, fields, over_lines, commas), end.end()
        else:
            reached = line + text.count("\n", start, position)
            return Record(line, (), fault=_end_fault(text[position], opened, line, reached)), start


def _end_fault(following: str, quoted: bool, line: int, reached: int) -> str:
    """What is wrong where neither a comma nor the end of the line follows a field."""
    over_lines = f", in line {reached}, which its quoted field reaches" if reached > line else ""
    if quoted:
        return f"text after the closing quote of a field{over_lines}"
    if following == '"':
        return f"a quote within a field that is not in quotes{over_lines}"
    return f"a carriage return without a line feed{over_lines}"
