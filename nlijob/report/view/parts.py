"""The building blocks of a page; all texts in them are formatted already."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace


class View(SimpleNamespace):
    """What a template prints, by name.

    Only the template reads it, so its parts have no declared types. A name that is missing is an
    error when the page is rendered. What Python code reads has a class of its own.
    """


@dataclass(frozen=True)
class Fact:
    """A name, its value, and a note in small type."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table; numbers are right-aligned."""

    name: str
    numeric: bool = True


@dataclass(frozen=True)
class CaseLink:
    """A link that filters the failure cases."""

    filter: str
    """As in the query of an address, such as "gold=ent&after=neu"."""
    rows: str = ""
    """Filter "slice": the row numbers, encoded."""


@dataclass(frozen=True)
class Row:
    """A row of a table; `mark` is shown as a badge, `bar` (0 to 1) as a bar in the background."""

    cells: tuple[str, ...]
    mark: str = ""
    bar: float | None = None
    indented: bool = False
    cases: CaseLink | None = None
    """Where the first cell leads to; None for a row without failure cases of its own."""


@dataclass(frozen=True)
class Table:
    """A table with its caption."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class MatrixCell:
    """The rows with one gold label and one answer."""

    count: str
    share: str
    """Share of the gold label's rows."""
    weight: float
    """Depth of the shade, 0 to 1."""
    right: bool
    cases: CaseLink | None = None
    """None if all of them are correct in the other model too, or there are none."""


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix; rows are gold labels, columns are answers."""

    caption: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[MatrixCell, ...]], ...]


def row(
    *cells: str,
    mark: str = "",
    bar: float | None = None,
    indented: bool = False,
    cases: CaseLink | None = None,
) -> Row:
    """A row of these cells."""
    return Row(cells, mark, bar, indented, cases)


def columns(*names: str) -> tuple[Column, ...]:
    """Columns by name: the first is text, the others are numbers."""
    return tuple(Column(name, numeric=position > 0) for position, name in enumerate(names))


def text_columns(*names: str) -> tuple[Column, ...]:
    """Columns by name, all of them text."""
    return tuple(Column(name, numeric=False) for name in names)
