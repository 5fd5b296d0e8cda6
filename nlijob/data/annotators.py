"""The labels that single annotators gave, as corpora carry them beside the gold label.

SNLI and MultiNLI have them as a list (`annotator_labels`), or in columns label1 to label5.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nlijob.analysis.wording import count, listed, plural
from nlijob.data.labels import UNLABELLED, LabelReader
from nlijob.data.meaning import Meaning
from nlijob.data.table import Row, shown
from nlijob.errors import NotAvailableError
from nlijob.records.job import Example

PEOPLE = "annotat(?:ors?|ions?)|individual|raw|crowd|workers?|humans?|raters?|coders?|all|old"
JUDGEMENTS = "labels?|votes?|judge?ments?|ratings?"
OF_ALL = re.compile(f"(?:{PEOPLE})(?:{JUDGEMENTS})|annotations?|votes|labelcount(?:s|er)?")
"""Names of a column that holds the labels of all annotators, without case, blanks and the like."""
OF_ONE = re.compile(
    f"(?P<kind>label|(?:gold|{PEOPLE})(?:{JUDGEMENTS})?)(?P<number>[0-9]{{1,2}})(?:{JUDGEMENTS})?"
)
"""Names of a column that holds the labels of one annotator."""
QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
SEPARATORS = re.compile(r"[|;,\t\n]")
MOST_VOTES = 1000
"""Most annotators of a row where a source has their number for each label."""


@dataclass
class AnnotatorLabels:
    """Reads the annotators' labels of one split's rows."""

    columns: tuple[str, ...] = ()
    """Where they are: named by the configuration, or found in a row that has them."""
    _is_asked: bool = False
    """Whether the configuration names the columns."""
    _readers: dict[str, LabelReader | None] = field(default_factory=dict)
    _present: set[str] = field(default_factory=set)
    _readable: int = 0
    _unreadable: int = 0
    _first_unreadable: str = ""

    def of(self, row: Row, meaning: Meaning) -> tuple[int, ...]:
        """How many annotators of a row gave label 0, 1, 2, ...; empty if none did.

        Integers mean what they mean in the column of the gold label, unless the source names those
        of the annotators' own column.
        """
        asked = meaning.data.annotator_columns
        if asked is not None:
            self.columns, self._is_asked = asked, bool(asked)
        elif not self.columns:
            candidates = _candidates(row, meaning.used)
            self.columns = next((one for one in candidates if self._holds(row, one, meaning)), ())
        votes: Counter[int] = Counter()
        for column in self.columns:
            if column in row:
                self._present.add(column)
                votes.update(self._labels(row[column], column, meaning))
        labels = range(len(meaning.data.label_names))
        return tuple(votes[label] for label in labels) if votes else ()

    def settled(self, examples: Sequence[Example]) -> tuple[list[Example], list[str]]:
        """The rows with their annotators' labels if these can be used, else without; warnings.

        Raises NotAvailableError if columns that the configuration names cannot be used.
        """
        fault, is_told = self._fault(examples)
        if fault and self._is_asked:
            raise NotAvailableError(
                f"data.annotator_columns: {fault}",
                "name the columns with the annotators' labels, translate other spellings with "
                "data.label_map, or set data.annotator_columns=[]",
            )
        if not fault:
            return list(examples), []
        self.columns = ()
        warnings = [f"the annotators' labels are not used: {fault}"] if is_told else []
        return [replace(row, votes=()) for row in examples], warnings

    def _fault(self, examples: Sequence[Example]) -> tuple[str, bool]:
        """Why the labels cannot be used, "" if they can; and whether they look like such labels."""
        missing = [shown(one) for one in self.columns if one not in self._present]
        if missing:
            return f"no row has a column {listed(missing)}", True
        if self._unreadable:
            return self._first_unreadable, self._readable >= self._unreadable
        judged = [row for row in examples if sum(row.votes) > 1]
        if not judged:
            return "no row has the labels of two annotators", False
        other = sum(row.votes[row.label] < max(row.votes) for row in judged)
        if 2 * other > len(judged) and not self._is_asked:
            columns = listed([*map(shown, self.columns)])
            return (
                f"in {count(other)} of {plural(len(judged), 'row')} the gold label is not the most "
                f"frequent label in {columns}",
                True,
            )
        return "", True

    def _labels(self, value: Any, column: str, meaning: Meaning) -> list[int]:
        """The label numbers in a cell; cells and items without a label are left out."""
        labels = []
        for item in self._items(value, column, meaning):
            label = self._number(item, column, meaning)
            if label is None:
                self._unreadable += 1
                self._first_unreadable = self._first_unreadable or (
                    f"column {shown(column)} has {shown(item)}, which is no label"
                )
            else:
                labels += [label] if label != UNLABELLED else []
        self._readable += len(labels)
        return labels

    def _holds(self, row: Row, columns: Sequence[str], meaning: Meaning) -> bool:
        """Whether these columns hold any label in a row."""
        items = (item for one in columns for item in self._items(row[one], one, meaning))
        return any(
            self._number(item, columns[0], meaning) not in (None, UNLABELLED) for item in items
        )

    def _items(self, value: Any, column: str, meaning: Meaning) -> list[Any]:
        if isinstance(value, str):
            if self._number(value, column, meaning) is not None:
                return [value]
            value = _of_text(value)
        if isinstance(value, Mapping):
            return _of_counts(value)
        return list(value) if isinstance(value, list | tuple) else [value]

    def _number(self, value: Any, column: str, meaning: Meaning) -> int | None:
        if column not in self._readers:
            names = meaning.class_labels.get(column) or meaning.class_labels.get(meaning.label, {})
            try:
                self._readers[column] = LabelReader(meaning.data, names)
            except NotAvailableError:  # the names of the column's integers are no labels
                self._readers[column] = None
        reader = self._readers[column]
        return None if reader is None else reader.number(value)


def _candidates(row: Row, used: Collection[str]) -> Iterator[tuple[str, ...]]:
    """The columns of a row that may hold annotators' labels, by their names.

    A column with the labels of all comes first, as corpora that have both forms repeat themselves.
    """
    columns = [column for column in row if column not in used]
    for column in columns:
        if OF_ALL.fullmatch(_plain(column)) and _is_several(row[column]):
            yield (column,)
    groups: dict[str, dict[str, int]] = {}
    for column in columns:
        if match := OF_ONE.fullmatch(_plain(column)):
            groups.setdefault(match["kind"], {})[column] = int(match["number"])
    for kind, numbers in groups.items():
        of_labels = kind == "label" and 0 in numbers.values()  # label_0, label_1: one a class
        if len(numbers) > 1 and not of_labels:
            yield tuple(numbers)


@functools.lru_cache(maxsize=1024)
def _plain(column: str) -> str:
    return re.sub(r"[\W_]+", "", column[:99]).casefold()


def _is_several(value: Any) -> bool:
    if isinstance(value, str):
        return bool(re.search(r"[\[{|;,\s]", value.strip()))
    return isinstance(value, list | tuple | Mapping)


def _of_text(text: str) -> Any:
    """The list or mapping that a text spells: as JSON, as Python writes it, or with separators."""
    text = text.strip()
    if text[:1] in ("[", "{"):
        for spelling in (text, text.replace("'", '"')):
            try:
                return json.loads(spelling)
            except (ValueError, RecursionError):
                continue
        inner = text.strip("[]{}")
        if quoted := QUOTED.findall(inner):  # NumPy writes no commas
            return [one or other for one, other in quoted]
        text = inner
    separator = SEPARATORS.search(text)
    return [part.strip(" '\"") for part in text.split(separator[0] if separator else None)]


def _of_counts(counts: Mapping[Any, Any]) -> list[Any]:
    """Each label as often as it was given; the mapping itself if it does not hold numbers."""
    numbers = [value or 0 for value in counts.values()]
    if not all(map(_is_count, numbers)) or sum(numbers) > MOST_VOTES:
        return [counts]
    return [label for label, n in zip(counts, numbers, strict=True) for _ in range(int(n))]


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0 == value % 1
