"""The building blocks of a page: frozen, and every text in them formatted already."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """A name, its value, and a note in small type."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Column:
    """A table's column; numbers stand to the right."""

    name: str
    numeric: bool = True


@dataclass(frozen=True)
class Row:
    """A table's row; `mark` is set in it as a badge, `bar` (0 to 1) behind it as a bar."""

    cells: tuple[str, ...]
    mark: str = ""
    bar: float | None = None
    indented: bool = False


@dataclass(frozen=True)
class Table:
    """A table with the caption that makes it readable alone."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class MatrixCell:
    """Rows of one gold label given one answer."""

    count: str
    share: str
    """Of the gold label's rows."""
    weight: float
    """0 to 1, for the shade."""
    right: bool


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix; rows are gold labels, columns are answers."""

    caption: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[MatrixCell, ...]], ...]


def columns(*names: str) -> tuple[Column, ...]:
    """Columns by name: the first is text, the others are numbers."""
    return tuple(Column(name, numeric=position > 0) for position, name in enumerate(names))


def text_columns(*names: str) -> tuple[Column, ...]:
    """Columns by name, all of them text."""
    return tuple(Column(name, numeric=False) for name in names)
