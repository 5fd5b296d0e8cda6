"""Whose label is which: the labels of a checkpoint made for classification, and the job's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nlijob.config import DataConfig

UNNAMED = re.compile(r"(LABEL|label)_?\d+|\d+")
"""Names that libraries give to labels without names."""


@dataclass(frozen=True)
class LabelOrder:
    """How the outputs of a checkpoint's head become the job's."""

    order: tuple[int, ...]
    """The checkpoint's output for each of the job's labels; empty if they cannot be mapped."""
    reason: str
    """What was mapped, or why nothing can be, in words."""


def label_order(data: DataConfig, names: Sequence[str]) -> LabelOrder:
    """Map a checkpoint's label names, in the order of its outputs, to the job's labels by name.

    A name may be spelled as in data.label_names or data.label_map, in capitals or not.
    """
    shown = ", ".join(names)
    if not names or all(UNNAMED.fullmatch(name) for name in names):
        return LabelOrder((), "the checkpoint does not name its labels")
    if len(names) != len(data.label_names):
        return LabelOrder((), f"the checkpoint has other labels: {shown}")
    numbers = [_number(data, name) for name in names]
    if sorted(numbers) != list(range(len(names))):
        return LabelOrder((), f"the checkpoint has labels of other names: {shown}")
    order = tuple(numbers.index(label) for label in range(len(names)))
    return LabelOrder(order, f"the checkpoint's own, with its labels mapped by name: {shown}")


def _number(data: DataConfig, name: str) -> int:
    """The job's label with this name; -1 if there is none, or more than one."""
    spellings: Mapping[str, int] = {
        **data.label_map,
        **{known: number for number, known in enumerate(data.label_names)},
    }
    if name in spellings:
        return spellings[name]
    alike = {number for known, number in spellings.items() if _folded(known) == _folded(name)}
    return alike.pop() if len(alike) == 1 else -1


def _folded(name: str) -> str:
    return name.strip().casefold()
