"""Text with separated fields: comma-separated values, and tab-separated ones as corpora ship them.

Comma-separated values are read strictly as in RFC 4180: nothing is guessed. The standard library's
csv module accepts a quote anywhere and rows of any length. A stray quote then swallows the rows up
to the next one, and a comma too many moves texts to other columns, both silently. It also refuses
fields of more than 131,072 characters.

Tab-separated values of corpora (SNLI, MultiNLI, HANS, SciTail, GLUE) are not quoted: a quote is a
character like others. Other programs write them with quotes. The two cannot be mistaken for one
another: see `_is_quoted`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nlijob.analysis.wording import plural
from nlijob.data.table import (
    Content,
    Faults,
    Lines,
    Row,
    Survey,
    refuse_lines,
    refuse_repeated_columns,
)
from nlijob.data.text import first_text, format_of, text_lines
from nlijob.errors import NotAvailableError

QUOTED_HINT = (
    "put each field that contains a comma, a quote or a line break in double quotes, and double "
    "the quotes within it; or convert the file to JSON Lines"
)
TABS_HINT = "each line has a field for each column, separated by tabs; or convert it to JSON Lines"
NEVER_CLOSED = "a quoted field that is never closed"
QUOTED = re.compile(r'"((?:[^"]++|"")*+)"')
PLAIN = {mark: re.compile(rf'[^"{mark}\r\n]*+') for mark in (",", "\t")}
WHOLE_LINE = {
    mark: re.compile(rf"{field}(?:{mark}{field})*+")
    for mark in PLAIN
    for field in [rf'(?:"(?:[^"\r\n]++|"")*+"|[^"{mark}\r\n]*+)']
}
"""A line that is a whole record, as nearly all are; its fields are found in one go."""
FIELDS = {
    mark: re.compile(rf'(?:^|{mark})(?:"((?:[^"]++|"")*+)"|([^"{mark}]*+))') for mark in PLAIN
}
LINE_END = re.compile(r"\r?(?=\n|\Z)")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
ANNOTATOR = re.compile(r"label[0-9]+")
"""Columns of single annotators' labels. MultiNLI's rows end early where there are fewer of them."""


@dataclass(frozen=True)
class Form:
    """How the fields of a file are written."""

    separator: str
    is_quoted: bool
    """Whether fields may be in quotes, as in RFC 4180."""

    @property
    def hint(self) -> str:
        """How to mend a malformed line."""
        return QUOTED_HINT if self.is_quoted else TABS_HINT


@dataclass(frozen=True)
class Record:
    """A row of the table; it spans several lines of the file if a field has line breaks."""

    line: int
    """Where it begins, from 1."""
    fields: Sequence[str]
    fields_over_lines: int = 0
    separators: frozenset[int] = frozenset()
    """Numbers of separators in its lines, where it has several lines."""
    needs_quotes: bool = False
    """Whether a field has a quote, a separator or a line break within quotes."""
    fault: str = ""
    """Why it cannot be read; `fields` is then empty."""


@dataclass(frozen=True)
class SeparatedRows:
    """The rows of a .csv, .tsv or .txt file. Blank lines are skipped."""

    path: Path
    columns: tuple[str, ...] = ()
    """Names of the columns, of a file whose first line does not name them."""

    def check(self, survey: Survey) -> Content:
        """Read all rows. Raises NotAvailableError that names the malformed lines."""
        header, faults = self._header, Faults()
        blank, rows = 0, 0
        over_lines, joined = Lines(), Lines()
        wanted = survey.begin(header)
        picked = [(name, header.index(name)) for name in wanted if name in header]
        for record in self._records():
            if record is None:
                blank += 1
            elif fault := self._fault(record):
                faults.add(f"line {record.line}: {fault}")
            elif not self._is_header(record):
                fields = self._fields(record)
                survey.see({name: fields[at] for name, at in picked})
                rows += 1
                if record.fields_over_lines:
                    over_lines = over_lines.and_at(record.line, record.fields_over_lines)
                if record.separators == {len(header) - 1}:
                    joined = joined.and_at(record.line)
        if faults.count:
            refuse_lines(self.path, faults, self._form.hint)
        refuse_repeated_columns(self.path, header)
        return Content(rows, tuple(header), blank, over_lines, joined)

    def rows(self, wanted: Iterable[int]) -> Iterator[tuple[int, Row]]:
        """The wanted rows with the lines at which they begin."""
        asked = iter(wanted)
        target = next(asked, None)
        number = 0
        for record in self._records():
            if target is None:
                return
            if record is None or self._is_header(record):
                continue
            if number == target:
                yield record.line, dict(zip(self._header, self._fields(record), strict=True))
                target = next(asked, None)
            number += 1

    @cached_property
    def _form(self) -> Form:
        start = first_text(self.path)
        usual = "," if format_of(self.path) == ".csv" else "\t"
        if usual == "," and "\t" in start and "," not in start:
            usual = "\t"  # FarsTail
        found = [mark for mark in SEPARATORS if mark in start]
        if found and usual not in found:
            raise NotAvailableError(
                f"{self.path} cannot be read: its columns are separated by "
                f"{SEPARATORS[found[0]]}, not {SEPARATORS[usual]}",
                "save it with commas as .csv or with tabs as .tsv, or convert it to JSON Lines",
            )
        return Form(usual, usual == "," or _is_quoted(self.path))

    @cached_property
    def _first(self) -> Record | None:
        return next((record for record in self._records() if record is not None), None)

    @cached_property
    def _header(self) -> Sequence[str]:
        return self.columns or (self._first.fields if self._first else ())

    def _is_header(self, record: Record) -> bool:
        return not self.columns and self._first is not None and record.line == self._first.line

    def _records(self) -> Iterator[Record | None]:
        return records(text_lines(self.path), self._form)

    def _fields(self, record: Record) -> Sequence[str]:
        missing = len(self._header) - len(record.fields)
        return record.fields if not missing else [*record.fields, *[""] * missing]

    def _fault(self, record: Record) -> str:
        """What is wrong with a record; "" if nothing is."""
        if record.fault:
            return record.fault
        if any("\0" in field for field in record.fields):
            return "a NUL character"
        expected, found = len(self._header), len(record.fields)
        if not expected or found == expected:
            return ""
        left_out = self._header[found:]
        if left_out and not self._form.is_quoted and all(map(ANNOTATOR.fullmatch, left_out)):
            return ""
        whose = "the configured columns are" if self.columns else "the header has"
        return f"{plural(found, 'field')}, but {whose} {expected}"


def _is_quoted(path: Path) -> bool:
    """Whether a tab-separated file has quoted fields, as RFC 4180 defines them.

    It has if each of its quotes is then where it may be, and at least one field needs its quotes,
    as only quoting explains a doubled quote, a tab or a line break in a field, or quotes around
    each name of a column. In texts without quoting, some quote soon stands within a field.
    """
    form = Form("\t", is_quoted=True)
    first = first_text(path).split("\t")
    needed = all(len(field) > 1 and field[0] == field[-1] == '"' for field in first)
    width = 0
    for record in records(text_lines(path), form):
        if record is not None:
            width = width or len(record.fields)
            if record.fault or len(record.fields) != width:
                return False
            needed |= record.needs_quotes
    return needed


# ---------------------------------------------------------------- records


class _Numbered:
    """Lines with their numbers, of which some can be given back."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._back: deque[str] = deque()
        self.number = 0

    def next(self) -> str | None:
        """The next line; None at the end."""
        line = self._back.popleft() if self._back else next(self._lines, None)
        self.number += line is not None
        return line

    def take(self, most: int) -> list[str]:
        """Up to `most` further lines."""
        taken = (self.next() for _ in range(most))
        return [line for line in taken if line is not None]

    def give_back(self, lines: Sequence[str]) -> None:
        """Lines that were read too far, in their order."""
        self._back.extendleft(reversed(lines))
        self.number -= len(lines)


def records(lines: Iterable[str], form: Form) -> Iterator[Record | None]:
    """All records of a file's lines, and None for each blank line between them.

    After a malformed record, reading goes on in the line after the one in which it begins.
    """
    source = _Numbered(lines)
    while (raw := source.next()) is not None:
        line = raw.removesuffix("\n").removesuffix("\r")
        if not line.strip():
            yield None
        elif form.is_quoted and '"' in line:
            of_line = _record_of_line(line, source.number, form.separator)
            yield of_line or _whole_record(raw, source, form.separator)
        elif "\r" in line:
            yield Record(source.number, (), fault="a carriage return without a line feed")
        else:
            yield Record(source.number, line.split(form.separator))


def _record_of_line(line: str, number: int, separator: str) -> Record | None:
    """The record that a line is, without its end; None if its quotes say something else."""
    if not WHOLE_LINE[separator].fullmatch(line):
        return None
    found: list[tuple[str, str]] = FIELDS[separator].findall(line)
    needs_quotes = any('"' in quoted or separator in quoted for quoted, _ in found)
    return Record(
        number,
        [quoted.replace('""', '"') if quoted else plain for quoted, plain in found],
        needs_quotes=needs_quotes,
    )


def _whole_record(raw: str, source: _Numbered, separator: str) -> Record:
    """The record that begins with a line and goes on for as many as its quotes span."""
    line, taken = source.number, [raw]
    record, end = _quoted_record(raw, line, separator)
    while record.fault == NEVER_CLOSED and (more := source.take(len(taken))):
        taken += more
        record, end = _quoted_record("".join(taken), line, separator)
    used = 1 if record.fault else "".join(taken).count("\n", 0, end) + 1
    source.give_back(taken[used:])
    return record


def _quoted_record(text: str, line: int, separator: str) -> tuple[Record, int]:
    """The record at the start of a text, and the position of the end of its last line."""
    fields: list[str] = []
    over_lines, needs_quotes = 0, False
    position = 0
    while True:
        opened = text.startswith('"', position)
        match = (QUOTED if opened else PLAIN[separator]).match(text, position)
        if match is None:
            return Record(line, (), fault=NEVER_CLOSED), position
        fields.append(match[1].replace('""', '"') if opened else match[0])
        is_over_lines = "\n" in match[0] or "\r" in match[0]
        over_lines += is_over_lines
        needs_quotes |= opened and (is_over_lines or '"' in match[1] or separator in match[1])
        position = match.end()
        if text.startswith(separator, position):
            position += 1
        elif end := LINE_END.match(text, position):
            lines = text[: end.end()].split("\n") if over_lines else ()
            counts = frozenset(line.count(separator) for line in lines)
            return Record(line, fields, over_lines, counts, needs_quotes), end.end()
        else:
            reached = line + text.count("\n", 0, position)
            return Record(line, (), fault=_end_fault(text[position], opened, line, reached)), 0


def _end_fault(following: str, quoted: bool, line: int, reached: int) -> str:
    """What is wrong where neither a separator nor the end of the line follows a field."""
    over_lines = f", in line {reached}, which its quoted field reaches" if reached > line else ""
    if quoted:
        return f"text after the closing quote of a field{over_lines}"
    if following == '"':
        return f"a quote within a field that is not in quotes{over_lines}"
    return f"a carriage return without a line feed{over_lines}"
