"""General text, on which the loss before and after tuning shows what was forgotten."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nlijob.config import OWN_TEXTS, SplitSize
from nlijob.data.layout import FORMATS
from nlijob.data.sources import read_file
from nlijob.data.subset import chosen_indices
from nlijob.data.table import Faults, refuse_lines, shown
from nlijob.data.text import LONE_SURROGATE, format_of, text_lines
from nlijob.errors import NotAvailableError
from nlijob.hub import folder_stamp
from nlijob.printable import printable
from nlijob.records.forgetting import GeneralText

FOLDER = Path(__file__).parent.parent / "texts"
MOST_TEXTS = 500
"""More would take longer and hardly narrow the interval."""
COLUMN, KIND = "text", "kind"
ROWS = tuple(ending for ending in FORMATS if ending != ".txt")
"""Endings of files with rows; any other file is plain text."""
KEY = "forgetting.texts"
HINT = (
    "give a file with plain text and blank lines between its paragraphs, or with rows whose "
    f'column {COLUMN} holds a text; --set {KEY}="" measures nothing'
)
ROWS_HINT = f'each row needs its text in a column named {COLUMN}, such as {{"{COLUMN}": "..."}}'


def read_texts(wanted: str) -> list[GeneralText]:
    """The texts that forgetting.texts names, at most `MOST_TEXTS`; none where it is "".

    Raises NotAvailableError if the file is missing, empty or not UTF-8, or if a row has no text.
    """
    if not wanted:
        return []
    path = _file(wanted)
    found = _rows(path) if format_of(path) in ROWS else _paragraphs(path)
    if not found:
        raise NotAvailableError(f"{KEY}: {path} has no text in it", HINT)
    return found


def texts_stamp(wanted: str) -> str:
    """The identity of the texts: name and hash of their file; "" where there are none.

    Raises NotAvailableError if the file is missing.
    """
    if not wanted:
        return ""
    path = _file(wanted)
    return folder_stamp(path.parent, [glob.escape(path.name)])


def _file(wanted: str) -> Path:
    """The file that is named. Raises NotAvailableError if it is not there."""
    if wanted in OWN_TEXTS:
        return FOLDER / f"{wanted}.jsonl"
    what = "does not exist"
    with contextlib.suppress(RuntimeError, OSError, ValueError):  # no such user; too long a name
        path = Path(wanted).expanduser()
        if path.is_file():
            return path
        what = "is a folder" if path.is_dir() else what
    raise NotAvailableError(f"{KEY}: {printable(wanted)} {what}", HINT)


def _rows(path: Path) -> list[GeneralText]:
    """The texts in the column of a file with rows."""
    table = read_file(path)
    if len(table) and COLUMN not in table.columns:
        names = ", ".join(map(shown, table.columns))
        raise NotAvailableError(f"{KEY}: {path} has no column {COLUMN}; it has {names}", ROWS_HINT)
    texts, faults = [], Faults()
    for row in table.chosen(_some(len(table))):
        content, kind = row.row.get(COLUMN), row.row.get(KIND)
        if fault := _fault(content):
            faults.add(f"{row.place}: {fault}")
        else:
            kind = kind if isinstance(kind, str) and not _fault(kind) else ""
            texts.append(GeneralText(row.number + 1, str(content), kind))
    if faults.count:
        refuse_lines(path, faults, ROWS_HINT)
    return texts


def _fault(content: Any) -> str:
    """What is wrong with a text; "" if nothing is."""
    if not isinstance(content, str):
        return f"{COLUMN} is {shown(content)}, not a text"
    if LONE_SURROGATE.search(content):
        return f"{COLUMN} holds half of a character, which is not valid text"
    return "" if content.strip() else f"{COLUMN} is blank"


def _paragraphs(path: Path) -> list[GeneralText]:
    """The paragraphs of plain text."""
    number = sum(1 for _ in _each_paragraph(path))
    wanted = set(_some(number))
    return [
        GeneralText(position + 1, content)
        for position, content in enumerate(_each_paragraph(path))
        if position in wanted
    ]


def _each_paragraph(path: Path) -> Iterator[str]:
    lines: list[str] = []
    for line in text_lines(path):
        if line.strip():
            lines.append(line.rstrip())
        elif lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)


def _some(number: int) -> Sequence[int]:
    """Positions of the texts that are taken of so many."""
    return chosen_indices(number, SplitSize(size=MOST_TEXTS))
