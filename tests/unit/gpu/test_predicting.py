"""The GPU side labels the parent's chunks exactly as the job scores the same rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from nlijob import records
from nlijob.config import JobConfig
from nlijob.demo import MODEL_DIR
from nlijob.errors import ExitCode, NotAvailableError
from nlijob.gpu import checkpoints, predicting
from nlijob.gpu.engine import Engine
from nlijob.gpu.heads import CausalHead, Encoded, EncodedRows
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.scoring import score
from nlijob.records.job import Example, Prediction, Split, WorkerOutcome, WorkerTask
from nlijob.records.use import Chunk, ChunkCount, RowFault, ScoredChunk, UseTask
from nlijob.rundir import write_record
from nlijob.use.workspace import Workspace


@pytest.fixture(scope="module")
def loaded(new_model: Callable[..., LoadedModel]) -> LoadedModel:
    """The demo's model with an adapter that changes every answer."""
    model = new_model()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in model.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.2)
    return model


@pytest.fixture(scope="module")
def adapter(loaded: LoadedModel, demo: JobConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter on disk."""
    folder = tmp_path_factory.mktemp("adapter")
    checkpoints.save_adapter(loaded.model, folder, demo.model)
    return folder


@pytest.fixture(scope="module")
def scored(
    loaded: LoadedModel, head: CausalHead, demo: JobConfig, rows: list[Encoded]
) -> dict[str, list[Prediction]]:
    """The job's own predictions on the rows, with and without the adapter."""
    engine = Engine(loaded, head, demo, rows)

    def predictions() -> list[Prediction]:
        size = demo.eval.batch_size
        return score(engine.forward(), head, "test", rows, size, lambda _: None)[1]

    tuned = predictions()
    with loaded.model.disable_adapter():
        return {"tuned": tuned, "base": predictions()}


def labelled(
    root: Path,
    config: JobConfig,
    adapter: Path | None,
    chunks: Sequence[Sequence[Example]],
    label_tokens: tuple[int, ...] | None = None,
) -> tuple[WorkerOutcome, list[ScoredChunk]]:
    """What the GPU side makes of chunks of rows."""
    place = Workspace(root)
    train = [row for chunk in chunks for row in chunk if len(row.premise) < 400]
    place.prepare(config, UseTask(None if adapter is None else str(adapter), label_tokens), train)
    write_record(place.run.worker_task, WorkerTask(1, 0.0, 0.0, str(MODEL_DIR), "demo", {}))
    for number, rows in enumerate(chunks, start=1):
        texts = tuple(r.premise for r in rows), tuple(r.hypothesis for r in rows)
        place.chunk(number).write_text(Chunk(*texts).text(), encoding="utf-8")
    write_record(place.count, ChunkCount(len(chunks)))
    outcome = predicting.work(place.run)
    files = map(place.scored, range(1, len(chunks) + 1))
    return outcome, [records.read(ScoredChunk, file) for file in files if file.exists()]


@pytest.mark.parametrize("model", ["tuned", "base"])
def test_labels_and_probabilities_are_the_jobs_to_the_last_bit(
    tmp_path: Path,
    demo: JobConfig,
    adapter: Path,
    examples: list[Example],
    scored: dict[str, list[Prediction]],
    model: str,
) -> None:
    used = adapter if model == "tuned" else None
    outcome, (chunk,) = labelled(tmp_path, demo, used, [examples])
    assert outcome == WorkerOutcome(0, "", "")
    assert chunk.predicted == tuple(row.predicted for row in scored[model])
    assert chunk.probabilities == tuple(row.probabilities for row in scored[model])


def test_rows_that_the_model_cannot_read_are_faults_and_the_others_are_labelled(
    tmp_path: Path, demo: JobConfig, adapter: Path, examples: list[Example]
) -> None:
    long = dataclasses.replace(examples[0], premise="word " * 900)
    outcome, chunks = labelled(
        tmp_path, demo, adapter, [[examples[0], long, examples[1]], [examples[2]]]
    )
    assert outcome.exit_code == 0, outcome
    first, second = chunks
    assert [fault.row for fault in first.unlabelled] == [1]
    assert "tokens, more than the model's" in first.unlabelled[0].text
    assert [number >= 0 for number in first.predicted] == [True, False, True]
    assert second.unlabelled == ()


def test_a_row_that_the_head_refuses_is_a_fault_of_its_own(
    tmp_path: Path,
    demo: JobConfig,
    adapter: Path,
    examples: list[Example],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(self: CausalHead, split: Split, rows: EncodedRows) -> None:
        if split == "test" and any(example.index == 1 for example in rows.examples):
            raise NotAvailableError("test row 1 has a token that the model lacks")

    monkeypatch.setattr(CausalHead, "_check_tokens", refused)
    _, (chunk,) = labelled(tmp_path, demo, adapter, [examples[:3]])
    # each row is tried alone, under its own number
    assert chunk.unlabelled == (RowFault(1, "test row 1 has a token that the model lacks"),)


@pytest.mark.parametrize("damage", ["other model", "other tokens"])
def test_an_adapter_of_another_model_or_prompt_is_refused(
    tmp_path: Path, demo: JobConfig, adapter: Path, examples: list[Example], damage: str
) -> None:
    config: Any = demo
    if damage == "other model":
        config = dataclasses.replace(demo, lora=dataclasses.replace(demo.lora, r=4))
    tokens = (1, 2, 3) if damage == "other tokens" else None
    outcome, chunks = labelled(tmp_path, config, adapter, [examples], tokens)
    assert outcome.exit_code == ExitCode.NOT_AVAILABLE
    assert chunks == []
