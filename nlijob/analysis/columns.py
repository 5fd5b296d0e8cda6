"""Which further columns of the test rows divide them into slices, and how their names are shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nlijob.analysis.wording import listed
from nlijob.errors import ConfigurationError
from nlijob.printable import UNSAFE
from nlijob.records.job import Example

MOST_VALUES = 20
"""Most different values of a column that is chosen by rule."""
MOST_VALUES_OF_A_SET = 50
"""The same in a further test set: HANS has 30 subcases."""
MOST_COLUMNS = 10
"""Most columns that are chosen by rule, as each test makes the others less likely to find
something."""
ROWS_A_VALUE = 2
"""Fewest rows for each value on average, in a column that is chosen by rule."""
LONGEST_VALUE = 60
"""Longest value of such a column, in characters."""
SHOWN_LENGTH = 60
"""Names and values are cut to this length, in characters."""
SHOWN_COLUMNS = 12
IDENTIFIER = re.compile(r"(?:(?:^|[\W_])(?i:u?id|uuid|guid|idx|index)|(?<=[a-z])I[Dd])$")
"""Names of columns that number the rows or their sources."""
CANNOT_STAND = re.compile(f"{UNSAFE.pattern}|\u061c")


@dataclass(frozen=True)
class Grouping:
    """A column that divides the rows."""

    column: str
    rows: Mapping[str, frozenset[int]]
    """Value -> numbers of its rows, in order of first appearance; rows without one are in none."""


def groupings(
    examples: Sequence[Example],
    wanted: Sequence[str] | None = None,
    most_values: int = MOST_VALUES,
) -> tuple[Grouping, ...]:
    """The columns that are `wanted`, or else those that look like categories.

    These have at most `most_values` short values that repeat, and are no identifiers. Columns that
    divide the rows just as the gold label or an earlier column does are left out. Raises
    ConfigurationError if a wanted column is not there.
    """
    found = {grouping.column: grouping for grouping in _all_groupings(examples)}
    if wanted is not None:
        check_columns(wanted, tuple(found))
        return tuple(found[column] for column in dict.fromkeys(wanted))
    chosen: list[Grouping] = []
    divisions = {_division(_by_label(examples))}
    for grouping in found.values():
        division = _division(grouping.rows)
        if _is_category(grouping, most_values) and division not in divisions:
            divisions.add(division)
            chosen.append(grouping)
    return tuple(chosen[:MOST_COLUMNS])


def check_columns(wanted: Sequence[str] | None, known: Sequence[str]) -> None:
    """Raise ConfigurationError if a wanted column is not among those that the test rows keep."""
    missing = [column for column in wanted or () if column not in known]
    if not missing:
        return
    more = ["others"] if len(known) > SHOWN_COLUMNS else []
    there = [*map(shown_name, known[:SHOWN_COLUMNS]), *more]
    raise ConfigurationError(
        f"report.slice_columns: the test rows keep no column {listed([*map(shown_name, missing)])}",
        f"they keep {listed(there)}; a column is kept if it has 2 to 200 different values, none of "
        "them a long text",
    )


def shown_name(text: str) -> str:
    """A column's name or value for a sentence or a table: on one line, cut where it is long."""
    line = CANNOT_STAND.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split()))
    return line if len(line) <= SHOWN_LENGTH else f"{line[: SHOWN_LENGTH - 1].rstrip()}…"


def _all_groupings(examples: Iterable[Example]) -> list[Grouping]:
    rows: dict[str, dict[str, set[int]]] = {}
    for example in examples:
        for column, value in example.columns.items():
            rows.setdefault(column, {}).setdefault(value, set()).add(example.index)
    return [
        Grouping(column, {value: frozenset(indices) for value, indices in values.items()})
        for column, values in rows.items()
    ]


def _by_label(examples: Iterable[Example]) -> dict[int, set[int]]:
    rows: dict[int, set[int]] = {}
    for example in examples:
        rows.setdefault(example.label, set()).add(example.index)
    return rows


def _division(rows: Mapping[str, frozenset[int]] | Mapping[int, set[int]]) -> frozenset[object]:
    """How rows are divided, whatever the parts are called."""
    return frozenset(frozenset(indices) for indices in rows.values())


def _is_category(grouping: Grouping, most_values: int) -> bool:
    values = grouping.rows
    return (
        2 <= len(values) <= most_values
        and sum(map(len, values.values())) >= ROWS_A_VALUE * len(values)
        and max(map(len, values)) <= LONGEST_VALUE
        and not IDENTIFIER.search(grouping.column)
    )
