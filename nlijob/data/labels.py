"""What the labels of a source mean: label numbers from numbers and names.

An integer label means what its source says. A source that names its labels (a ClassLabel of the
library `datasets`, in the hub's features, in Parquet metadata or in the card) is read by these
names; the integers of any other source are read in the order of data.label_names.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from nlijob.analysis.wording import listed
from nlijob.config import DataConfig
from nlijob.data.table import shown
from nlijob.errors import NotAvailableError

UNLABELLED = -1
SCALARS = (str, int, float, Decimal, type(None))
WHOLE_NUMBER = re.compile(r"(-?[0-9]{1,18})(?:\.0+)?")
"""Whole numbers in ASCII digits; pandas writes a column with missing labels as 0.0, 1.0, ..."""
BETWEEN_WORDS = re.compile(r"(?<=\w)[\s_-]+(?=\w)")

SPELLINGS = {
    "entailment": ("e", "entail", "entails", "entailed"),
    "neutral": ("n",),
    "contradiction": ("c", "contradict", "contradicts", "contradicted", "contradictory"),
    "not_entailment": ("non entailment", "nonentailment", "no entailment", "not entailed"),
}
"""How corpora spell the usual labels beside their names: ANLI, FarsTail, SciTail, XNLI, HANS."""
TWO_WAY = (("entailment", "not_entailment"), ("entailment", "neutral"))
"""Sets of two labels that are known: HANS, RTE, QNLI and WNLI; SciTail."""

Way = Literal["name", "number", "source name", "label map", "unlabelled"]
"""How a label was read."""


@dataclass
class LabelReader:
    """Reads the labels of one split, and remembers how it read the integers among them."""

    data: DataConfig
    source_names: Mapping[int, str]
    """What the source says that its integers mean; {} if it names no labels."""
    numbers: dict[Way, dict[int, int]] = field(default_factory=dict)
    """How integers were read -> integer -> label number."""
    names_read: bool = False
    """Whether any label was a name."""
    _read: dict[tuple[type, Any], int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise NotAvailableError if the source has names that the configuration does not know."""
        if all(name == str(number) for number, name in self.source_names.items()):
            self.source_names = {}  # the numbers themselves name nothing
        unknown = [
            name
            for number, name in self.source_names.items()
            if str(number) not in self.data.label_map and self._of_name(name) is None
        ]
        if unknown:
            names, missing = (
                listed([*map(shown, some)]) for some in (self.source_names.values(), unknown)
            )
            keys = self.data.key("label_names"), self.data.key("label_map")
            example = self.data.setting("label_map", f"{{{json.dumps(unknown[0])} = 0}}")
            raise NotAvailableError(
                f"the source names its labels {names}; {keys[0]} and {keys[1]} do not know "
                f"{missing}",
                f"set {keys[0]} to the names that the source uses (in any order), or map each to a "
                f"label number or to -1: {example}",
            )

    def number(self, value: Any) -> int | None:
        """The label number of a value; -1 if it has no gold label, None if it is unknown.

        Missing values (null, NaN, an empty text) have no gold label.
        """
        if not isinstance(value, SCALARS):
            return None
        key = type(value), value  # a split has many rows and few spellings
        if key not in self._read:
            self._read[key] = self._number(value)
        return self._read[key]

    def _number(self, value: Any) -> int | None:
        text = str(value).strip()
        if (mapped := self._mapped(text)) is not None:
            return self._remember("label map", whole_number(value), mapped)
        if value is None or not text or (isinstance(value, float) and math.isnan(value)):
            return UNLABELLED
        if isinstance(value, bool):  # true could be either of two labels
            return None
        number = whole_number(value)
        if number is not None:
            return self._of_number(number)
        label = self._of_name(text)
        self.names_read |= label is not None
        return label

    def how(self) -> str:
        """How the integers of the split were read, in words; "" if it has no labels."""
        by_source, by_number = self.numbers.get("source name"), self.numbers.get("number")
        by_map = self.numbers.get("label map")
        parts = []
        if by_source:
            pairs = self._pairs(by_source)
            parts.append(f"integer labels read by the names that the source carries: {pairs}")
        if by_number:
            numbers, labels = zip(*sorted(by_number.items()), strict=True)
            no_names = "no integer labels" if self.names_read else "no labels"
            parts.append(
                f"the source names {no_names}; {listed([*map(str, numbers)])} "
                f"{'was' if len(numbers) == 1 else 'were'} read as "
                f"{listed([self._name(label) for label in labels])}"
            )
        if by_map:
            key = self.data.key("label_map")
            parts.append(f"integer labels read by {key}: {self._pairs(by_map)}")
        if self.names_read:
            parts.append("labels given by name")
        return "; ".join(parts)

    def _of_number(self, number: int) -> int | None:
        if number == UNLABELLED:
            return UNLABELLED
        if (mapped := self._mapped(str(number))) is not None:
            return self._remember("label map", number, mapped)
        if self.source_names:
            name = self.source_names.get(number)
            label = None if name is None else self._of_name(name)
            return self._remember("source name", number, label)
        label = number if 0 <= number < len(self.data.label_names) else None
        return self._remember("number", number, label)

    def _of_name(self, name: str) -> int | None:
        """The label number of a name: by data.label_map, then by data.label_names."""
        text = name.strip()
        if (mapped := self._mapped(text)) is not None:
            return mapped
        names = self.data.label_names
        if text in names:
            return names.index(text)
        alike = [i for i, known in enumerate(names) if _plain(known) == _plain(text)]
        if len(alike) == 1:
            return alike[0]
        if text == "-":
            return UNLABELLED
        meant = meaning(text)
        alike = [i for i, known in enumerate(names) if meant and meaning(known) == meant]
        if len(alike) == 1:
            return alike[0]
        number = whole_number(text)  # a source may name its labels "0", "1" and "2"
        if number is not None and UNLABELLED <= number < len(names):
            return number
        return None

    def _mapped(self, text: str) -> int | None:
        label_map = self.data.label_map
        if text in label_map:
            return label_map[text]
        alike = {number for known, number in label_map.items() if _plain(known) == _plain(text)}
        return alike.pop() if len(alike) == 1 else None

    def _remember(self, way: Way, number: int | None, label: int | None) -> int | None:
        if label is not None and number is not None:
            self.numbers.setdefault(way, {})[number] = label
        return label

    def _pairs(self, read: Mapping[int, int]) -> str:
        return ", ".join(
            f"{number} = {self._name(label)}" for number, label in sorted(read.items())
        )

    def _name(self, label: int) -> str:
        return "no gold label" if label == UNLABELLED else self.data.label_names[label]


def meaning(name: str) -> str:
    """Which of the usual labels a name stands for; "" if none."""
    return _MEANINGS.get(_plain(name), "")


def two_way(names: Iterable[str]) -> tuple[str, ...]:
    """The known set of two labels that names stand for; () if they are others."""
    meant = {meaning(name) for name in names}
    return next((known for known in TWO_WAY if set(known) == meant), ())


def whole_number(value: Any) -> int | None:
    """The whole number that a label is or spells; None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    match = WHOLE_NUMBER.fullmatch(str(value).strip())
    return int(match[1]) if match else None


def _plain(name: str) -> str:
    """A name without case, surrounding blanks, and the difference of _, - and blank in it."""
    return BETWEEN_WORDS.sub(" ", name.strip()).casefold()


_MEANINGS = {
    _plain(spelling): name
    for name, spellings in SPELLINGS.items()
    for spelling in (name, *spellings)
}
