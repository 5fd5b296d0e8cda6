"""A split as its source stores it: rows that are read anew whenever they are needed.

A file is read twice: once to check all of it and to count its rows, once to take the chosen ones.
Neither holds more than a few rows at a time, so that memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

from nlijob.analysis.wording import count, plural
from nlijob.errors import NotAvailableError

Row = Mapping[str, Any]
ClassLabels = Mapping[str, Mapping[int, str]]
"""Column -> what its integers mean: number -> name."""
SHOWN_FAULTS = 5
CHANGED: tuple[int, Row] = (0, {})
"""What a reader yields for a row that was there when the file was checked, and is not any more."""


@dataclass(frozen=True)
class Lines:
    """Lines of a file at which something was found: how many, and the first few, from 1."""

    count: int = 0
    first: tuple[int, ...] = ()

    def and_at(self, line: int, times: int = 1) -> Lines:
        """These lines, and `line` that many times."""
        first = (*self.first, *[line] * times)[:SHOWN_FAULTS]
        return Lines(self.count + times, first)

    def __add__(self, other: Lines) -> Lines:
        return Lines(self.count + other.count, (*self.first, *other.first)[:SHOWN_FAULTS])


@dataclass(frozen=True)
class Content:
    """What a file was found to hold when all of it was checked."""

    rows: int = 0
    columns: tuple[str, ...] = ()
    """Names of the columns, as the file or its first row has them."""
    blank_lines: int = 0
    """Text files: lines without content between the rows; they are no rows."""
    fields_over_lines: Lines = Lines()
    """CSV: the line at which each field begins that spans several lines."""
    perhaps_joined: Lines = Lines()
    """CSV: the line at which each row begins that spans lines which could all be rows."""
    class_labels: ClassLabels = field(default_factory=dict)


class Survey(Protocol):
    """Looks at every row of a source while it is checked."""

    def begin(self, columns: Sequence[str]) -> Sequence[str]:
        """Called before a file's first row. Returns the columns whose values are needed."""

    def see(self, row: Row) -> None:
        """A row, in the stored order; it has at least the columns that are needed and there."""


class NoSurvey:
    """Needs nothing."""

    def begin(self, columns: Sequence[str]) -> Sequence[str]:
        """No column is needed."""
        return ()

    def see(self, row: Row) -> None:
        """Nothing to do."""


class Reader(Protocol):
    """The rows of one file."""

    def check(self, survey: Survey) -> Content:
        """Read all of the file. Raises NotAvailableError that names what is malformed."""

    def rows(self, wanted: Iterable[int]) -> Iterator[tuple[int, Row]]:
        """The wanted rows (numbers from 0, ascending), each with its line or 0 without lines."""


class Part(NamedTuple):
    """A file of a split."""

    name: str
    reader: Reader
    content: Content


class Chosen(NamedTuple):
    """A row that was asked for."""

    number: int
    """Its number in the source, from 0."""
    place: str
    """Where it is, for messages: "row 8, line 9"."""
    line: int
    row: Row


@dataclass(frozen=True)
class Table:
    """The rows of a split, in their stored order, and what the source says about them."""

    parts: Sequence[Part]
    class_labels: ClassLabels = field(default_factory=dict)
    numbers: Sequence[int] | None = None
    """Rows of the source that belong to the split, ascending; None: all of them."""

    @classmethod
    def of(cls, name: str, reader: Reader, survey: Survey | None = None) -> Table:
        """The table of one file, which is checked. Raises NotAvailableError."""
        content = reader.check(survey or NoSurvey())
        return cls([Part(name, reader, content)], content.class_labels)

    def __len__(self) -> int:
        if self.numbers is not None:
            return len(self.numbers)
        return sum(part.content.rows for part in self.parts)

    def chosen(self, indices: Iterable[int]) -> Iterator[Chosen]:
        """The rows at these positions of the split (ascending), read in one go."""
        numbers = indices if self.numbers is None else (self.numbers[index] for index in indices)
        ahead = iter(numbers)
        number = next(ahead, None)
        ends = accumulate(part.content.rows for part in self.parts)
        for part, end in zip(self.parts, ends, strict=True):
            start = end - part.content.rows
            here = []
            while number is not None and number < end:
                here.append(number)
                number = next(ahead, None)
            found = part.reader.rows([one - start for one in here]) if here else iter(())
            of_file = f" of {part.name}" if len(self.parts) > 1 else ""
            for one in here:
                line, row = next(found, CHANGED)
                if row is CHANGED[1]:
                    raise NotAvailableError(
                        f"{part.name} changed while it was read", "read it when it is complete"
                    )
                place = f"row {one}, line {line}{of_file}" if line else f"row {one}"
                yield Chosen(one, place, line, row)

    @property
    def rows(self) -> list[Row]:
        """All rows; for small tables."""
        return [chosen.row for chosen in self.chosen(range(len(self)))]

    @property
    def lines(self) -> list[int]:
        """The line at which each row begins; for small tables."""
        return [chosen.line for chosen in self.chosen(range(len(self)))]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, as the first file with rows has them."""
        return next((part.content.columns for part in self.parts if part.content.rows), ())

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that are read."""
        return tuple(part.name for part in self.parts)

    @property
    def blank_lines(self) -> int:
        """Lines without content."""
        return sum(part.content.blank_lines for part in self.parts)

    @property
    def fields_over_lines(self) -> Lines:
        """Where fields span several lines; the numbers are those of the first file with any."""
        return sum((part.content.fields_over_lines for part in self.parts), Lines())

    @property
    def perhaps_joined(self) -> Lines:
        """Where rows span lines which could all be rows."""
        return sum((part.content.perhaps_joined for part in self.parts), Lines())


@dataclass
class Faults:
    """Faults of lines or rows, of which the first few are kept."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, fault: str) -> None:
        """Count a fault."""
        self.count += 1
        if len(self.first) < SHOWN_FAULTS:
            self.first.append(fault)

    def __str__(self) -> str:
        """The first few faults, and how many more there are."""
        more = self.count - len(self.first)
        return "; ".join(self.first) + (f"; and {count(more)} more" if more else "")


def refuse_lines(path: Path, faults: Faults, hint: str) -> NoReturn:
    """Raise NotAvailableError that names the first malformed lines ("line 3: what is wrong")."""
    raise NotAvailableError(
        f"{path} cannot be read: {plural(faults.count, 'malformed line')}: {faults}", hint
    )


def refuse_repeated_columns(path: Path, columns: Sequence[str]) -> None:
    """Raise NotAvailableError if two columns have the same name; columns without one may."""
    repeated = sorted({name for name in columns if name and columns.count(name) > 1})
    if repeated:
        raise NotAvailableError(
            f"{path} cannot be read: several columns are named {', '.join(map(shown, repeated))}",
            "rename or remove all but one of them",
        )


def shown(value: object) -> str:
    """An untrusted value for a message, cut where it is long."""
    if value is not None and not isinstance(value, str | int | float):
        kinds: dict[type, str] = {list: "a list", dict: "an object"}
        return kinds.get(type(value), f"a value of type {type(value).__name__}")
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
