"""Further columns of the rows: what a source says beyond premise, hypothesis and label.

Corpora carry a genre, a heuristic or the round of a collection. The report can show how the models
do for each value of such a column, so the rows keep the columns that could be categories.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nlijob.data.meaning import Meaning
from nlijob.data.table import Row
from nlijob.data.text import LONE_SURROGATE
from nlijob.records.job import Example

MOST_VALUES = 200
"""Most different values of a column that is kept."""
MOST_COLUMNS = 50
"""Most columns that are kept, the first ones of the source."""
LONGEST_VALUE = 100
"""Longest value of a column that is kept, in characters; longer ones are texts."""


@dataclass
class FurtherColumns:
    """Collects the further columns of one split's rows, and forgets those that are no categories.

    So it holds few values, however many rows there are.
    """

    _values: dict[str, set[str]] = field(default_factory=dict)
    """Column -> its different values."""
    _unfit: set[str] = field(default_factory=set)

    def of(self, row: Row, meaning: Meaning) -> dict[str, str]:
        """The columns of a row that may be categories, without empty values."""
        found = {}
        for column, value in row.items():
            if column in meaning.used or column in self._unfit or not _is_fit_name(column):
                continue
            text = _text(value, meaning.class_labels.get(column, {}))
            if text is None or not self._has_room(column, text):
                self._unfit.add(column)
                self._values.pop(column, None)
            elif text:
                found[writable(column)] = text
        return found

    def carried(self, examples: Sequence[Example], without: Collection[str] = ()) -> list[Example]:
        """The rows with the columns that could be categories, in the order of the source.

        Such a column has at least two values in these rows, and one that occurs twice. Columns
        `without` are left out.
        """
        left_out = {*map(writable, self._unfit), *map(writable, without)}
        kept = [
            column
            for column, counts in _counts(examples).items()
            if column not in left_out and len(counts) > 1 and max(counts.values()) > 1
        ][:MOST_COLUMNS]
        return [
            replace(row, columns={key: row.columns[key] for key in kept if key in row.columns})
            for row in examples
        ]

    def _has_room(self, column: str, text: str) -> bool:
        values = self._values.setdefault(column, set())
        values.add(text)
        return len(values) <= MOST_VALUES


def column_names(examples: Iterable[Example]) -> tuple[str, ...]:
    """The further columns that rows have, in order of first appearance."""
    return tuple(dict.fromkeys(name for row in examples for name in row.columns))


def _counts(examples: Iterable[Example]) -> dict[str, Counter[str]]:
    """Column -> how often each of its values occurs."""
    counts: dict[str, Counter[str]] = {}
    for row in examples:
        for column, value in row.columns.items():
            counts.setdefault(column, Counter())[value] += 1
    return counts


def _is_fit_name(column: str) -> bool:
    """Whether a column has a name; an index that pandas wrote has none."""
    return 0 < len(column.strip()) <= LONGEST_VALUE


def _text(value: Any, names: Mapping[int, str]) -> str | None:
    """A value as text; "" if it is missing, None if it cannot be a category.

    Texts, truth values and whole numbers can. pandas writes whole numbers as 1.0 where some are
    missing.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        if names:
            return writable(names.get(value, ""))  # -1 stands for a missing one
        value = str(value) if abs(value) < 10**18 else None
    if not isinstance(value, str):
        return None
    text = value.strip()
    return writable(text) if len(text) <= LONGEST_VALUE and "\n" not in text else None


def writable(text: str) -> str:
    """A text without halves of characters, which cannot be written."""
    return LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
