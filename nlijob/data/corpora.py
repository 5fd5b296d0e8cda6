"""What the columns of a source mean: makes an `Example` of each row."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from nlijob.analysis.wording import plural
from nlijob.config import DataConfig
from nlijob.data.beyond import Beyond
from nlijob.data.labels import UNLABELLED, LabelReader
from nlijob.data.meaning import Meaning
from nlijob.data.table import Row, Table, first_faults, shown
from nlijob.errors import NotAvailableError
from nlijob.records.job import Example, Split

CORPUS_COLUMNS = {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"}
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a character: JSON can encode it, but it is not valid text."""


def read_examples(
    data: DataConfig,
    split: Split,
    table: Table,
    indices: Sequence[int],
    beyond: Beyond | None = None,
) -> tuple[list[Example], str]:
    """The chosen rows of a source as examples, and how integer labels were read, in words.

    `beyond` reads what else the rows say, where that is wanted. An unlabelled example has the label
    -1. Raises NotAvailableError that names the rows that cannot be used.
    """
    if not indices:
        return [], ""
    columns = _columns(data, split, table.rows[indices[0]])
    labels = _label_reader(data, split, table, columns["label"])
    meaning = Meaning(data, columns["label"], frozenset(columns.values()), table.class_labels)
    examples: list[Example] = []
    faults: list[str] = []
    hints: set[str] = set()
    for index in indices:
        row = table.rows[index]
        texts = [row.get(columns[key]) for key in ("premise", "hypothesis")]
        label = labels.number(row[columns["label"]]) if columns["label"] in row else None
        if label is None:
            faults.append(f"{table.place(index)}: {_label_fault(row, columns['label'])}")
            hints.add(
                f"labels are 0 to {len(data.label_names) - 1}, {', '.join(data.label_names)}, or "
                "-1; map others with data.label_map"
            )
        elif label != UNLABELLED and (wrong := _text_fault(row, columns)):
            faults.append(f"{table.place(index)}: {wrong}")
            hints.add("give these rows both texts, or remove them, or set their label to -1")
        else:
            more = beyond.of(row, meaning) if beyond else ()
            examples.append(Example(index, str(texts[0]), str(texts[1]), label, *more))
    if faults:
        raise NotAvailableError(
            f"{data.dataset}, split {split}: {plural(len(faults), 'row')} cannot be used "
            f"({first_faults(faults)})",
            "; ".join(sorted(hints)),
        )
    return examples, labels.how()


def _label_reader(data: DataConfig, split: Split, table: Table, column: str) -> LabelReader:
    try:
        return LabelReader(data, table.class_labels.get(column, {}))
    except NotAvailableError as error:
        raise NotAvailableError(
            f"{data.dataset}, split {split}: {error.message}", error.hint
        ) from error


def _label_fault(row: Row, column: str) -> str:
    return f"label {shown(row[column])}" if column in row else f"it has no column {column}"


def _text_fault(row: Row, columns: dict[str, str]) -> str:
    """Which of the two texts is missing or not a text; "" if both are valid."""
    for key in ("premise", "hypothesis"):
        column = columns[key]
        if column not in row:
            return f"it has no column {column}"
        value: Any = row[column]
        if not isinstance(value, str):
            return f"column {column} is {_missing(value) or shown(value)}, not a text"
        if LONE_SURROGATE.search(value):
            return f"column {column} has half of a character (a lone surrogate): {shown(value)}"
    return ""


def _missing(value: Any) -> str:
    """The name of a missing value; "" for any other."""
    if value is None:
        return "missing (null)"
    return "missing (NaN)" if isinstance(value, float) and math.isnan(value) else ""


def _columns(data: DataConfig, split: Split, row: Row) -> dict[str, str]:
    """Return the column names: the recipe's, or the original corpus's if the source has those."""
    asked = {
        "premise": data.premise_column,
        "hypothesis": data.hypothesis_column,
        "label": data.label_column,
    }
    for columns in (asked, CORPUS_COLUMNS):
        if all(name in row for name in columns.values()):
            return columns
    missing = ", ".join(name for name in asked.values() if name not in row)
    raise NotAvailableError(
        f"{data.dataset}, split {split}: no column {missing}; the columns are "
        f"{', '.join(map(_column_name, row))}",
        "set data.premise_column, data.hypothesis_column and data.label_column; the first line of "
        "a CSV file must name its columns",
    )


def _column_name(name: str) -> str:
    """A column's name for a message; in quotes if it would not be seen for what it is."""
    is_plain = name.isprintable() and name.strip() == name and 0 < len(name) <= 60
    return name if is_plain else shown(name)
