"""Further test sets: what is read of them, both models' answers, and what these say."""

from __future__ import annotations

from dataclasses import dataclass

from nlijob.records.job import SplitManifest


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
class Elsewhere:
    """elsewhere/manifest.json: what is read beside the run's own rows."""

    transfer: tuple[TransferManifest, ...] = ()
    """The further test sets, in the order of the configuration."""
