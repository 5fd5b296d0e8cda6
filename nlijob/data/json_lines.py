"""JSON Lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlijob.data.table import Row, Table, refuse_lines, shown
from nlijob.data.text import read_text
from nlijob.errors import NotAvailableError

HINT = "a .jsonl file has one whole JSON object on each line, with a key for each column"


def read_json_lines(path: Path) -> Table:
    """The rows of a .jsonl file. Blank lines are skipped and counted.

    Raises NotAvailableError that names the malformed lines.
    """
    text = read_text(path)
    rows: list[Row] = []
    lines: list[int] = []
    faults: list[tuple[int, str]] = []
    content = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    for number, line in enumerate(content, start=1):
        if not line.strip():
            continue
        row = _row(line)
        if isinstance(row, str):
            faults.append((number, row))
        else:
            rows.append(row)
            lines.append(number)
    if faults or len(rows) == 1:
        _refuse_one_value(path, text, is_row=not faults)
    if faults:
        refuse_lines(path, faults, HINT)
    return Table(rows, lines, blank_lines=len(content) - len(rows) if text else 0)


def _row(line: str) -> Row | str:
    """The object in a line, or what is wrong with it."""
    try:
        row = json.loads(line, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at character {error.colno}"
    except _RepeatedKeyError as error:
        return f"not usable: the key {shown(error.args[0])} occurs twice in an object"
    except ValueError:  # Python reads whole numbers of up to 4,300 digits
        return "not usable: a number has too many digits"
    except RecursionError:
        return "not usable: lists or objects are nested too deeply"
    return row if isinstance(row, dict) else "not an object with columns"


class _RepeatedKeyError(ValueError):
    """An object has a key twice; the parser would silently take the last value."""


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return row


def _refuse_one_value(path: Path, text: str, is_row: bool) -> None:
    """Raise NotAvailableError if the whole file is one array, or one object that holds rows.

    `is_row`: the file is a single line with an object, which can also be a row.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(value, list):
        raise NotAvailableError(
            f"{path} cannot be read: the file is one JSON array, not one object a line",
            f"write each of its objects as a line: jq -c '.[]' {path.name} > lines{path.suffix}",
        )
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
