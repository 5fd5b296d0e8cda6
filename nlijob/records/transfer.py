"""Further test sets: what is read of them, both models' answers, and what these say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from nlijob.records.job import ROUNDING, SplitManifest


@dataclass(frozen=True)
class RowsInTraining:
    """How many rows of a set stand among the training rows too. White space does not count."""

    rows_with_premise: int
    """Rows whose premise stands in a training row."""
    whole_rows: int
    """Rows whose premise and hypothesis stand together in a training row."""


@dataclass(frozen=True)
class TransferManifest:
    """Where the rows of a further test set come from, and how answers are compared with them."""

    name: str
    dataset: str
    revision: str | None
    config_name: str | None
    source_split: str
    """The source's name for the split."""
    label_names: tuple[str, ...]
    """The set's own labels 0, 1, 2, ..."""
    answers: tuple[int, ...]
    """For each label that the model answers, the number of the set's label for which it counts."""
    rows: SplitManifest
    """The rows that were taken; their numbers in the source are left out."""
    in_training: RowsInTraining
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class TransferPrediction:
    """A line of baseline/transfer/<name>.jsonl and evaluate/transfer/<name>.jsonl.

    It is one model's answer to one row of a further test set, with the labels of the model.
    """

    index: int
    """Row number in the source. Rows that are too long for the model have no answer."""
    probabilities: tuple[float, ...]
    """Probability of each label that the model answers; they sum to 1."""
    tokens: int
    """Length of the model input in tokens."""

    def line(self) -> str:
        """The record as a line of JSON; a set may have many rows, and `records.dump_line`, which
        copies every value, takes several times as long."""
        return json.dumps(vars(self), allow_nan=False) + "\n"

    def faults(self) -> Iterator[str]:
        """What cannot be, whatever the model."""
        if not all(0 <= one <= 1 for one in self.probabilities):
            yield "a probability is not between 0 and 1"
        if abs(sum(self.probabilities) - 1) > ROUNDING:
            yield "the probabilities do not sum to 1"


@dataclass(frozen=True)
class Elsewhere:
    """elsewhere/manifest.json: what is read beside the run's own rows."""

    transfer: tuple[TransferManifest, ...] = ()
    """The further test sets, in the order of the configuration."""
    texts: int = 0
    """Number of general texts."""
    tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness, as the configuration names them."""
