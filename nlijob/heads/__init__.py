"""The task heads as the parent knows them, without torch: `nlijob.gpu.heads` implements them.

To add a head, write a description here and an implementation there, and add both to the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

from nlijob.errors import ConfigurationError
from nlijob.heads.base import HeadDescription
from nlijob.heads.causal import CAUSAL
from nlijob.heads.classification import CLASSIFICATION

HeadName = Literal["causal", "sequence-classification"]
HEADS: dict[HeadName, HeadDescription] = {
    "causal": CAUSAL,
    "sequence-classification": CLASSIFICATION,
}

T = TypeVar("T")


def describe(name: str) -> HeadDescription:
    """Return the description of a head. Raises ConfigurationError for an unknown name."""
    return find(HEADS, name)


def find(heads: Mapping[HeadName, T], name: str) -> T:
    """Return a head's entry in a table. Raises ConfigurationError for an unknown name."""
    for known, entry in heads.items():
        if known == name:
            return entry
    raise ConfigurationError(f"model.head: unknown head {name!r}; known: {', '.join(heads)}")


__all__ = ["HEADS", "HeadDescription", "HeadName", "describe", "find"]
