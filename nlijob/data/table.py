"""A split as its source stores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from nlijob.analysis.wording import count, plural
from nlijob.errors import NotAvailableError

Row = Mapping[str, Any]
ClassLabels = Mapping[str, Mapping[int, str]]
"""Column -> what its integers mean: number -> name."""
SHOWN_FAULTS = 5


@dataclass(frozen=True)
class Table:
    """The rows of a split, in their stored order, and what the source says about them."""

    rows: Sequence[Row]
    """Each a mapping of column to value."""
    lines: Sequence[int] = ()
    """Text files: the line (from 1) at which each row begins."""
    blank_lines: int = 0
    """Text files: lines without content between the rows; they are no rows."""
    fields_over_lines: tuple[int, ...] = ()
    """CSV: the line at which each field begins that spans several lines."""
    perhaps_joined: tuple[int, ...] = ()
    """CSV: the line at which each row begins that spans lines which could all be rows."""
    class_labels: ClassLabels = field(default_factory=dict)

    def place(self, index: int) -> str:
        """Where a row is, for messages: "row 8, line 9"."""
        return f"row {index}, line {self.lines[index]}" if self.lines else f"row {index}"


def refuse_lines(path: Path, faults: Sequence[tuple[int, str]], hint: str) -> NoReturn:
    """Raise NotAvailableError that names the first malformed lines (line number, fault)."""
    raise NotAvailableError(
        f"{path} cannot be read: {plural(len(faults), 'malformed line')}: "
        + first_faults([f"line {number}: {fault}" for number, fault in faults]),
        hint,
    )


def refuse_repeated_columns(path: Path, columns: Sequence[str]) -> None:
    """Raise NotAvailableError if two columns have the same name; columns without one may."""
    repeated = sorted({name for name in columns if name and columns.count(name) > 1})
    if repeated:
        raise NotAvailableError(
            f"{path} cannot be read: several columns are named {', '.join(map(shown, repeated))}",
            "rename or remove all but one of them",
        )


def first_faults(faults: Sequence[str]) -> str:
    """The first few faults, and how many more there are."""
    shown = "; ".join(faults[:SHOWN_FAULTS])
    more = len(faults) - SHOWN_FAULTS
    return f"{shown}; and {count(more)} more" if more > 0 else shown


def shown(value: object) -> str:
    """An untrusted value for a message, cut where it is long."""
    if value is not None and not isinstance(value, str | int | float):
        kinds: dict[type, str] = {list: "a list", dict: "an object"}
        return kinds.get(type(value), f"a value of type {type(value).__name__}")
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
