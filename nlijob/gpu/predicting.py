"""Labels the rows that the parent hands over in chunks, with the scoring of the job.

While a chunk is scored, the next one is read and tokenized in a thread.
"""

from __future__ import annotations

import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlijob import records
from nlijob.errors import NotAvailableError, first_line
from nlijob.gpu import checkpoints
from nlijob.gpu.engine import Engine, Forward
from nlijob.gpu.heads import Encoded, Head
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.scoring import score
from nlijob.gpu.session import Session
from nlijob.gpu.worker import outcome_of_work
from nlijob.memory import is_out_of_memory
from nlijob.records.job import Example, Prediction, SplitScore, WorkerOutcome
from nlijob.records.use import Chunk, ChunkCount, RowFault, ScoredChunk, UseTask
from nlijob.rundir import RunDir
from nlijob.use.workspace import Workspace

POLL_S = 0.005


def work(run: RunDir) -> WorkerOutcome:
    """Label all chunks in a `Workspace`, whose run this is."""
    return outcome_of_work(run, _predict)


def _predict(run: RunDir) -> None:
    place = Workspace(run.root)
    session = Session(run)
    task = records.read(UseTask, place.task)
    predictor = Predictor(session, task)
    with predictor.model_in_use():
        for number, chunk in enumerate(_encoded_chunks(place, predictor.encode), start=1):
            _write(place.scored(number), predictor.score(chunk))
    session.copy_writer.wait()


@dataclass(frozen=True)
class EncodedChunk:
    """Rows of a chunk as model input."""

    size: int
    """Number of rows in the chunk."""
    rows: list[Encoded]
    """Those that can be scored; `example.index` is the place in the chunk."""
    faults: list[RowFault]


class Predictor:
    """The model of a run, and how rows become its input; made as in the job."""

    def __init__(self, session: Session, task: UseTask) -> None:
        """Raises NotAvailableError where adapter or label tokens are not those of the run."""
        # Rows that are too long are faults of their own here, so the head accepts any length.
        self.head = session.new_head(session.config.prompt, sys.maxsize)
        check_label_tokens(self.head, task)
        self._loaded = session.loaded
        checked = self.head.encode("train", session.examples["train"])
        fitting = [row for row in checked if row.length <= self._loaded.max_length]
        self._engine = Engine(self._loaded, self.head, session.config, fitting)
        self._uses_adapter = task.adapter is not None
        if task.adapter is not None:
            load_adapter(self._loaded, Path(task.adapter))
        self._batch_size = session.config.eval.batch_size
        self._forward: Forward | None = None

    def model_in_use(self) -> Any:
        """A context in which the model is the tuned one, or the base model where that is asked."""
        return nullcontext() if self._uses_adapter else self._loaded.model.disable_adapter()

    def encode(self, chunk: Chunk) -> EncodedChunk:
        """Tokenize the rows of a chunk."""
        pairs = zip(chunk.premises, chunk.hypotheses, strict=True)
        examples = [Example(place, *texts, 0) for place, texts in enumerate(pairs)]
        faults: list[RowFault] = []
        rows: Sequence[Encoded]
        try:
            rows = self.head.encode("test", examples)
        except NotAvailableError:  # some row is to blame
            rows, faults = self._encode_each(examples)
        longest = self._loaded.max_length
        for row in rows:
            if row.length > longest:
                fault = f"{row.length:,} tokens, more than the model's {longest:,}"
                faults.append(RowFault(row.example.index, fault))
        fitting = [row for row in rows if row.length <= longest]
        return EncodedChunk(len(examples), fitting, faults)

    def scored(self, chunk: EncodedChunk) -> tuple[SplitScore, list[Prediction]]:
        """Time and predictions of the rows of a chunk that can be scored, as in the job."""
        if self._forward is None:
            self._forward = self._engine.forward(self.head)
        size = self._batch_size
        return score(self._forward, self.head, "test", chunk.rows, size, lambda _: None)

    @property
    def mode(self) -> str:
        """The execution mode: "graph", "packed" or "plain", as in the run's plan."""
        return self._engine.plan().way

    def score(self, chunk: EncodedChunk) -> ScoredChunk:
        """Label the rows of a chunk, within `model_in_use`."""
        predictions = self.scored(chunk)[1] if chunk.rows else []
        predicted = [-1] * chunk.size
        probabilities: list[tuple[float, ...]] = [()] * chunk.size
        faults = list(chunk.faults)
        for row in predictions:
            if math.isfinite(sum(row.probabilities)):
                predicted[row.index], probabilities[row.index] = row.predicted, row.probabilities
            else:
                faults.append(RowFault(row.index, "the model's logits are NaN or infinite"))
        return ScoredChunk(tuple(predicted), tuple(probabilities), tuple(faults))

    def _encode_each(self, examples: Sequence[Example]) -> tuple[list[Encoded], list[RowFault]]:
        rows: list[Encoded] = []
        faults: list[RowFault] = []
        for example in examples:
            try:
                rows += self.head.encode("test", [example])
            except NotAvailableError as error:
                faults.append(RowFault(example.index, error.message))
        return rows, faults


def load_adapter(loaded: LoadedModel, folder: Path) -> None:
    """Load an adapter into the model. Raises NotAvailableError if it is not of this model."""
    try:
        checkpoints.load_adapter(loaded.model, folder)
    except Exception as error:  # of several kinds, from the libraries that read and set weights
        if is_out_of_memory(error):
            raise
        raise NotAvailableError(
            f"the adapter in {folder} cannot be loaded: {first_line(error)}",
            "it belongs to another model or was saved incompletely",
        ) from error


def check_label_tokens(head: Head, task: UseTask) -> None:
    """Raise NotAvailableError unless the labels have the tokens that they had in the run."""
    if task.label_tokens is not None and head.label_tokens != task.label_tokens:
        raise NotAvailableError(
            f"the labels have the tokens {head.label_tokens} here, and had {task.label_tokens} in "
            "the run",
            "the tokenizer is not the one of the run, or another version of nlijob reads the "
            "prompt in another way",
        )


def _encoded_chunks(
    place: Workspace, encode: Callable[[Chunk], EncodedChunk]
) -> Iterator[EncodedChunk]:
    """All chunks in order. The next ones are read and encoded in a thread meanwhile.

    The parent has only a few under way, so that the queue stays short.
    """
    encoded: queue.SimpleQueue[EncodedChunk | BaseException | None] = queue.SimpleQueue()

    def read() -> None:
        try:
            number = 1
            while (chunk := _chunk(place, number)) is not None:
                encoded.put(encode(chunk))
                number += 1
            encoded.put(None)
        except BaseException as error:
            encoded.put(error)

    # A daemon: a stop must not wait for it.
    threading.Thread(target=read, name="reader", daemon=True).start()
    while (chunk := encoded.get()) is not None:
        if isinstance(chunk, BaseException):
            raise chunk
        yield chunk


def _chunk(place: Workspace, number: int) -> Chunk | None:
    """A chunk, once the parent has written it; None after the last one."""
    file = place.chunk(number)
    while not file.exists():
        if place.count.exists() and number > records.read(ChunkCount, place.count).chunks:
            return None
        time.sleep(POLL_S)
    chunk = records.read(Chunk, file)
    file.unlink()
    return chunk


def _write(file: Path, scored: ScoredChunk) -> None:
    beside = file.with_suffix(".part")
    beside.write_text(scored.text(), encoding="utf-8")
    beside.rename(file)
