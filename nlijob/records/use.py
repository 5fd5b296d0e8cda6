"""What `predict` and `export` write: beside an adapter, and between the parent and the GPU side."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

from nlijob.config import JobConfig, ReportConfig, without_machine
from nlijob.records.intervals import Interval
from nlijob.records.job import FORMAT_VERSION

ADAPTER_RECORD = "nlijob.json"
"""Name of the `AdapterRecord` beside an adapter."""


def shared_config(config: JobConfig) -> JobConfig:
    """The configuration as it is given to others, without prices, gates, further test sets and
    GPUs."""
    shared = dataclasses.replace(config, report=ReportConfig(), transfer=())
    return without_machine(shared)


@dataclass(frozen=True)
class AdapterRecord:
    """adapter/nlijob.json: what is needed to use the adapter without its run."""

    config: JobConfig
    """The configuration of the run; its report and machine sections are left at the defaults, and
    further test sets are left out."""
    model_stamp: str
    """Identity of the base model's files: a commit on the hub, or file names and hashes."""
    label_tokens: tuple[int, ...]
    """Causal head: token id of each label; empty for a classification head."""
    adapter_sha256: str
    """SHA-256 of the adapter's weights, in hexadecimal digits."""
    nlijob_version: str
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class UseTask:
    """use.json in the folder of a GPU side that works for `predict` or `export`."""

    adapter: str | None
    """Folder of the adapter; None for the base model without it."""
    label_tokens: tuple[int, ...] | None
    """The label tokens of the run, which must be found again; None where they are not known."""
    target: str = ""
    """`export`: folder to write the merged model to."""
    batch_rows: int = 1
    """`export`: rows that the merged model scores at once."""


@dataclass(frozen=True)
class Chunk:
    """Rows to be labelled, in order; the columns have one entry for each row."""

    premises: tuple[str, ...]
    hypotheses: tuple[str, ...]

    def text(self) -> str:
        """The record as JSON; `records.dump`, which copies every value, takes ten times as long."""
        return json.dumps(vars(self), ensure_ascii=False)


@dataclass(frozen=True)
class RowFault:
    """Why a row of a chunk has no label."""

    row: int
    """Its place in the chunk, from 0."""
    text: str


@dataclass(frozen=True)
class ScoredChunk:
    """The labels of a chunk's rows, in the same order."""

    predicted: tuple[int, ...]
    """Label number of each row; -1 for a row with a fault."""
    probabilities: tuple[tuple[float, ...], ...]
    """Probability of each label; () for a row with a fault."""
    unlabelled: tuple[RowFault, ...]
    """The rows without a label, and why."""

    def text(self) -> str:
        """The record as JSON, as `Chunk.text`."""
        unlabelled = [vars(one) for one in self.unlabelled]
        return json.dumps({**vars(self), "unlabelled": unlabelled}, allow_nan=False)


@dataclass(frozen=True)
class ChunkCount:
    """Says how many chunks there are, once that is known."""

    chunks: int


@dataclass(frozen=True)
class MergedModel:
    """What the GPU side says of the merged model that it wrote, besides its predictions."""

    dtype: str
    """Data type of its weights."""


@dataclass(frozen=True)
class SplitAccuracy:
    """How many rows a model labels correctly."""

    rows: int
    correct: int
    interval: Interval
    """95 % interval of the accuracy; rows that share a premise count as less than as many."""

    @property
    def accuracy(self) -> float:
        """Share of the rows that are labelled correctly (0 to 1)."""
        return self.correct / self.rows


@dataclass(frozen=True)
class ExportRecord:
    """nlijob-export.json in the folder of an export: what it is made of, and how it scores."""

    kind: Literal["merged", "adapter"]
    """A whole model, or the adapter alone."""
    run_id: str
    base_model: str
    base_revision: str | None
    model_stamp: str
    """Identity of the base model's files: a commit on the hub, or file names and hashes; "" where
    it is not known."""
    adapter_sha256: str
    """SHA-256 of the adapter's weights, in hexadecimal digits."""
    config: JobConfig
    """The configuration of the run; its report and machine sections are left at the defaults, and
    further test sets are left out."""
    weights: str
    """What the weights are, in words."""
    dtype: str
    """Data type of the weights on disk."""
    run_test: SplitAccuracy
    """The tuned model's score on the run's test rows, as the run measured it."""
    export_test: SplitAccuracy | None
    """The merged model's score on the same rows, loaded from this folder; None for an adapter."""
    same_answers: int | None
    """Test rows that the merged model and the run answer alike; None for an adapter."""
    nlijob_version: str
    format_version: int = FORMAT_VERSION
