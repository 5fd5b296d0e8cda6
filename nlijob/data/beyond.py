"""What the rows of a split say beyond their texts and their label, read while they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nlijob.data.annotators import AnnotatorLabels
from nlijob.data.further import FurtherColumns
from nlijob.data.meaning import Meaning
from nlijob.data.table import Row
from nlijob.records.job import Example


@dataclass
class Beyond:
    """Reads further columns and annotators' labels, then keeps what the report can use."""

    further: FurtherColumns = field(default_factory=FurtherColumns)
    annotators: AnnotatorLabels = field(default_factory=AnnotatorLabels)

    def of(self, row: Row, meaning: Meaning) -> tuple[dict[str, str], tuple[int, ...]]:
        """The further columns of a row, and how many annotators gave each label."""
        return self.further.of(row, meaning), self.annotators.of(row, meaning)

    def settled(self, examples: Sequence[Example]) -> tuple[list[Example], list[str]]:
        """The rows with what can be used of all this, and warnings on what cannot.

        Raises NotAvailableError if annotators' columns that the configuration names cannot be used.
        """
        rows, warnings = self.annotators.settled(examples)
        return self.further.carried(rows, self.annotators.columns), warnings
