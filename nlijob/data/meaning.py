"""What the columns of a source mean, for those who read what else its rows say."""

from __future__ import annotations

from typing import NamedTuple

from nlijob.config import DataConfig
from nlijob.data.table import ClassLabels


class Meaning(NamedTuple):
    """Which columns hold the texts and the gold label, and what integers stand for."""

    data: DataConfig
    label: str
    """The column of the gold label."""
    used: frozenset[str]
    """This column and those of the two texts."""
    class_labels: ClassLabels
