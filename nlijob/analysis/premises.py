"""Which rows share a premise.

A data set such as SNLI has several hypotheses for each premise. The answers to them resemble each
other, so rows that share a premise count as less than as many independent rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from nlijob.records.job import Example, Prediction
from nlijob.records.outcome import PremiseGroups

Premises = Mapping[int, int]
"""Row number in the source split -> number of its premise, from 0 in the order of the rows."""


def premises_of(examples: Iterable[Example]) -> dict[int, int]:
    """The premise number of each row; premises are the same if they differ in spaces at most.

    If all rows share one premise, each row gets a number of its own: one premise says nothing about
    others, so the figures can only be about the rows of this one.
    """
    rows = list(examples)
    numbers = _numbered(rows)
    return numbers if len({*numbers.values()}) > 1 else {row.index: row.index for row in rows}


def premise_numbers(rows: Iterable[Prediction], premises: Premises | None) -> list[int]:
    """The premise number of each row; if premises are not known, each row has one of its own.

    Raises KeyError if the premise of a row is missing.
    """
    return [row.index if premises is None else premises[row.index] for row in rows]


def premise_groups(examples: Sequence[Example]) -> PremiseGroups:
    """How the rows share premises. Raises ValueError if there are no rows."""
    if not examples:
        raise ValueError("no rows")
    numbers = _numbered(examples)
    sizes = Counter(numbers.values())
    repeats = 1 < len(sizes) < len(numbers)
    return PremiseGroups(
        rows=len(numbers),
        premises=len(sizes),
        most_rows=max(sizes.values()),
        numbers=tuple(numbers[row.index] for row in examples) if repeats else (),
    )


def units(groups: PremiseGroups | None) -> int | None:
    """The number of premises if they are the units; None if rows are, or if that is not known."""
    return groups.premises if groups and groups.numbers else None


def _numbered(examples: Iterable[Example]) -> dict[int, int]:
    known: dict[str, int] = {}
    return {
        row.index: known.setdefault(" ".join(row.premise.split()), len(known))
        for row in sorted(examples, key=lambda row: row.index)
    }
