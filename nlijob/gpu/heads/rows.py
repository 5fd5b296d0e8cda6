"""Rows as model input: one at a time, and all rows of a split in a few arrays.

A list takes 8 bytes for each token, and mostly 28 more for the integer itself. Of half a million
rows that is gigabytes, through which Python walks again and again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from nlijob.records.job import Example

Lengths = NDArray[np.int64]
Columns = Mapping[str, Sequence[Sequence[int]]]
"""What a tokenizer makes of some rows: name of a column -> each row's numbers."""


@dataclass(frozen=True)
class Encoded:
    """One row as model input."""

    example: Example
    features: dict[str, list[int]]
    """The tokenizer's columns, such as input_ids, each with one number per token."""

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.features["input_ids"])

    def first(self, tokens: int) -> Encoded:
        """The row's first tokens as a row."""
        features = {name: column[:tokens] for name, column in self.features.items()}
        return Encoded(self.example, features)


class EncodedRows(Sequence[Encoded]):
    """Rows whose tokens lie end to end: a row takes 4 bytes for each token and column, and 8 more.

    An `Encoded` is made whenever a row is asked for; a slice is a list of them.
    """

    def __init__(
        self, examples: Sequence[Example], columns: Mapping[str, NDArray[np.int32]], bounds: Lengths
    ) -> None:
        """`bounds` [rows + 1]: where each row's tokens begin in every column, and the end."""
        self.examples = examples
        self.columns = columns
        self.bounds = bounds

    @classmethod
    def of(cls, examples: Sequence[Example], parts: Iterable[Columns]) -> EncodedRows:
        """The rows that a tokenizer made of examples, some at a time."""
        lengths: list[Lengths] = []
        columns: dict[str, list[NDArray[np.int32]]] = {}
        for part in parts:
            lengths.append(np.fromiter(map(len, part["input_ids"]), np.int64))
            tokens = int(lengths[-1].sum())
            for name, rows in part.items():
                flat = np.fromiter(chain.from_iterable(rows), np.int32, tokens)
                columns.setdefault(name, []).append(flat)
        ends = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
        return cls(examples, {name: np.concatenate(own) for name, own in columns.items()}, ends)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        begin, end = self.bounds[number], self.bounds[number + 1]
        features = {name: column[begin:end].tolist() for name, column in self.columns.items()}
        return Encoded(self.examples[number], features)

    def __iter__(self) -> Iterator[Encoded]:
        return (self[number] for number in range(len(self)))

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def lengths(self) -> Lengths:
        """[rows]: the number of tokens of each row."""
        return np.diff(self.bounds)

    @property
    def ids(self) -> NDArray[np.int32]:
        """The token ids of all rows, end to end."""
        return self.columns.get("input_ids", np.zeros(0, np.int32))

    @property
    def common_prefix(self) -> int:
        """Number of tokens that all rows begin with."""
        starts, shortest = self.bounds[:-1], int(self.lengths.min()) if len(self) else 0
        for place in range(shortest):
            if (self.ids[starts + place] != self.ids[place]).any():
                return place
        return shortest

    def up_to(self, tokens: int) -> EncodedRows:
        """The rows that are no longer than this."""
        fits = self.lengths <= tokens
        if fits.all():
            return self
        held = np.repeat(fits, self.lengths)
        columns = {name: column[held] for name, column in self.columns.items()}
        examples = [self.examples[number] for number in np.flatnonzero(fits).tolist()]
        return EncodedRows(examples, columns, np.append(0, self.lengths[fits]).cumsum())

    def counts_of(self, tokens: Iterable[int]) -> Lengths:
        """[rows]: how many of each row's tokens are among these."""
        places = np.isin(self.ids, list(tokens)).nonzero()[0]
        return np.bincount(self.rows_at(places), minlength=len(self))

    def rows_at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the rows that places in `ids` belong to."""
        return self.bounds.searchsorted(places, side="right") - 1


def as_table(rows: Sequence[Encoded]) -> EncodedRows:
    """The rows in arrays, as they are or from single rows."""
    if isinstance(rows, EncodedRows):
        return rows
    names = rows[0].features if rows else ()
    columns = {name: [row.features[name] for row in rows] for name in names}
    return EncodedRows.of([row.example for row in rows], [columns] if rows else [])


def lengths_of(rows: Sequence[Encoded]) -> Lengths:
    """[rows]: the number of tokens of each row."""
    if isinstance(rows, EncodedRows):
        return rows.lengths
    return np.fromiter((row.length for row in rows), np.int64)


def columns_of(rows: Sequence[Encoded]) -> set[str]:
    """The names of the columns that rows have."""
    if isinstance(rows, EncodedRows):
        return set(rows.columns)
    return set().union(*(row.features for row in rows))


def shortest_of(rows: Sequence[Encoded]) -> Encoded:
    """The first of the rows with the fewest tokens."""
    return rows[int(lengths_of(rows).argmin())]
