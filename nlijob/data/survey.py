"""What is learned of a source while it is checked: columns, labels, and which split a row is in."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nlijob.config import DataConfig
from nlijob.data.corpora import WNLI_COLUMNS, WNLI_LABELS, Columns, find_columns
from nlijob.data.labels import SCALARS, UNLABELLED, LabelReader
from nlijob.data.overlap import plain_text
from nlijob.data.table import ClassLabels, Row, Table, shown
from nlijob.errors import NotAvailableError
from nlijob.records.job import Split

HELD_OUT = 0.1
"""Share of the premises that a validation or test split takes from the training rows."""
MOST_LABELS = 100
"""Different labels that are remembered; what has more of them is no column of labels."""
MOST_SPLITS = 255
SPLIT_COLUMNS = ("split", "semeval_set")
"""Columns that say whose split a row of a file for all splits is, in small letters; SICK's."""
HASH_BITS = 64


@dataclass
class SourceSurvey:
    """Notes the labels of all rows, and what decides about their split where that is asked."""

    data: DataConfig
    hashes: array[int] | None = None
    """Where premises decide about the split: the hash of each row's premise."""
    has_all_splits: bool = False
    """Whether the rows are those of all splits; a column may then say which."""
    columns: Columns | None = None
    split_column: str = ""
    labels: dict[tuple[type, Any], int] = field(default_factory=dict)
    """Type and value of each label -> its number of rows."""
    split_values: dict[str, int] = field(default_factory=dict)
    """Values of the column of splits -> their number in `split_of_row`."""
    split_of_row: array[int] = field(default_factory=lambda: array("B"))
    names: Sequence[str] = ()

    def begin(self, columns: Sequence[str]) -> Sequence[str]:
        """Find the columns that are needed."""
        if not self.names:
            self.names = columns
            self.columns = find_columns(self.data, columns) or find_columns(
                self.data, columns, need_label=False
            )
            if self.has_all_splits:
                self.split_column = self._find_split_column(columns)
        if self.columns is None:
            return ()
        needed = [self.columns.label]
        if self.hashes is not None:
            needed.append(self.columns.premise)
        return [*needed, self.split_column] if self.split_column else needed

    def see(self, row: Row) -> None:
        """Note the row's label, and what decides about its split."""
        if self.columns is None:
            return
        if self.columns.label in row:
            value = row[self.columns.label]
            if isinstance(value, float) and math.isnan(value):
                value = None  # equal to itself, unlike NaN
            key = type(value), value if isinstance(value, SCALARS) else shown(value)
            if key in self.labels or len(self.labels) < MOST_LABELS:
                self.labels[key] = self.labels.get(key, 0) + 1
        if self.hashes is not None:
            self.hashes.append(premise_hash(row.get(self.columns.premise)))
        if self.split_column:
            value = str(row.get(self.split_column, ""))
            number = self.split_values.setdefault(value, len(self.split_values))
            if number > MOST_SPLITS:
                raise NotAvailableError(
                    f"{self.data.dataset}: column {self.split_column} has more than "
                    f"{MOST_SPLITS} values, so it names no splits",
                    f"set {named} to the column that says whose split a row is"
                    if (named := self.data.key("split_column"))
                    else "give the column another name",
                )
            self.split_of_row.append(number)

    def rows_of(self, values: Sequence[str]) -> array[int]:
        """The numbers of the rows whose split has one of these names."""
        codes = {self.split_values[value] for value in values}
        return array("I", (i for i, code in enumerate(self.split_of_row) if code in codes))

    def is_unlabelled(self, table: Table) -> bool:
        """Whether the source has rows, of which none has a gold label, as GLUE's test splits."""
        if not len(table) or self.columns is None:
            return False
        if self.columns.label not in self.names:
            return True
        try:
            reader = LabelReader(self.data, table.class_labels.get(self.columns.label, {}))
        except NotAvailableError:
            return False
        return bool(self.labels) and all(
            reader.number(value) == UNLABELLED for _, value in self.labels
        )

    def known_class_labels(self) -> ClassLabels:
        """What is known of the numbers of a corpus that does not tell itself: WNLI."""
        small = tuple(name.lower() for name in self.names)
        values = {str(value) for _, value in self.labels}
        if small == WNLI_COLUMNS and values and values <= {"0", "1"}:
            return {self.names[-1]: WNLI_LABELS}
        return {}

    def label_texts(self) -> list[str]:
        """The labels that the rows have, for a message, the most frequent first."""
        ordered = sorted(self.labels.items(), key=lambda item: -item[1])
        return [shown(value) for (_, value), _ in ordered]

    def _find_split_column(self, columns: Sequence[str]) -> str:
        wanted = self.data.split_column
        if wanted and wanted not in columns:
            raise NotAvailableError(
                f"{self.data.dataset}: no column {wanted}; the columns are {', '.join(columns)}",
                "set data.split_column to the column that says whose split a row is",
            )
        known = (name for name in columns if name.lower() in SPLIT_COLUMNS)
        return wanted or next(known, "")


def premise_hash(premise: Any) -> int:
    """A number below 2**64 that depends on a premise's text only, not on its white space."""
    text = plain_text(premise) if isinstance(premise, str) else ""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=HASH_BITS // 8)
    return int.from_bytes(digest.digest(), "big")


def divided(hashes: Sequence[int], missing: Sequence[Split]) -> dict[Split, array[int]]:
    """Row numbers of the training split and of each missing one: all rows of a premise in one.

    Each missing split takes the premises in a tenth of the range of hashes, so that a premise stays
    where it is if rows are added. If that leaves a split without any, as with a few premises, they
    are dealt out in the order of their hashes.
    """
    tenth = int(HELD_OUT * 2**HASH_BITS)
    rows = _rows_of(
        hashes,
        missing,
        lambda one: missing[one // tenth] if one // tenth < len(missing) else "train",
    )
    if all(rows.values()):
        return rows
    dealt = dict(zip(sorted(set(hashes)), missing, strict=False))
    return _rows_of(hashes, missing, lambda one: dealt.get(one, "train"))


def _rows_of(
    hashes: Sequence[int], missing: Sequence[Split], split_of: Callable[[int], Split]
) -> dict[Split, array[int]]:
    rows: dict[Split, array[int]] = {split: array("I") for split in ("train", *missing)}
    for number, one in enumerate(hashes):
        rows[split_of(one)].append(number)
    return rows
