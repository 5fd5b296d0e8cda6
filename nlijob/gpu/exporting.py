"""Writes a run's merged model, loads it again as anybody would, and scores it on the test rows."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlijob import records
from nlijob.errors import NotAvailableError
from nlijob.gpu import scoring
from nlijob.gpu.engine import halving
from nlijob.gpu.heads import Encoded, Head, head_class
from nlijob.gpu.merging import save_merged, stored_dtype
from nlijob.gpu.out_of_memory import free_memory
from nlijob.gpu.predicting import check_label_tokens, load_adapter
from nlijob.gpu.reporting import scoring as scoring_part
from nlijob.gpu.scoring import check_finite
from nlijob.gpu.session import Session
from nlijob.gpu.worker import outcome_of_work
from nlijob.records.job import Prediction, WorkerOutcome
from nlijob.records.use import MergedModel, UseTask
from nlijob.rundir import RunDir, write_record, write_records
from nlijob.use.workspace import Workspace

STAGE = "export"


def work(run: RunDir) -> WorkerOutcome:
    """Do the export of a `Workspace`, whose run this is."""
    return outcome_of_work(run, _export)


def _export(run: RunDir) -> None:
    place = Workspace(run.root)
    session = Session(run)
    task = records.read(UseTask, place.task)
    assert task.adapter is not None
    target = Path(task.target)
    head = session.new_head(session.config.prompt, sys.maxsize)
    check_label_tokens(head, task)
    dtype = _write_model(session, Path(task.adapter), target)
    predictions = _score(session, target, dtype, task.batch_rows)
    write_records(place.predictions, predictions)
    write_record(place.merged, MergedModel(str(dtype).removeprefix("torch.")))


def _write_model(session: Session, adapter: Path, target: Path) -> torch.dtype:
    """Write model and tokenizer, and free the memory of the loaded one."""
    session.reporter.say(STAGE, "loading the model with its adapter")
    loaded = session.loaded
    load_adapter(loaded, adapter)
    session.reporter.say(STAGE, "writing the merged model")
    dtype = stored_dtype(loaded.compute_dtype)
    save_merged(loaded.model, Path(session.task.model_dir), dtype, target)
    session.tokenizer.save_pretrained(target)
    session.copy_writer.wait()
    del session.loaded, loaded
    free_memory()
    return dtype


def _score(
    session: Session, folder: Path, dtype: torch.dtype, batch_rows: int
) -> Sequence[Prediction]:
    """Answers of the model in a folder to the test rows, computed by the library's own layers."""
    session.reporter.say(STAGE, "loading the merged model again, to score it on the test rows")
    model = _load(session, folder, dtype)
    head = session.new_head(session.config.prompt, sys.maxsize)
    rows = head.encode("test", session.examples["test"])
    forward = halving(functools.partial(_logits, model, head, session.device))
    counter = session.reporter.counter(STAGE, scoring_part("test"), len(rows), "rows")
    predictions = scoring.score(forward, head, "test", rows, batch_rows, counter)[1]
    check_finite(STAGE, session.config.model, predictions)
    return predictions


def _load(session: Session, folder: Path, dtype: torch.dtype) -> Any:
    """The model in a folder, loaded with transformers alone."""
    place = "cpu" if session.device.type == "cpu" else session.device.index or 0
    model, info = head_class(session.config.model.head).auto_class.from_pretrained(
        folder,
        dtype=dtype,
        device_map={"": place},
        output_loading_info=True,
        trust_remote_code=session.config.model.trust_remote_code,
    )
    wrong = [*info["missing_keys"], *info["unexpected_keys"]]
    if wrong:
        raise NotAvailableError(
            f"model {session.config.model.name} cannot be merged: transformers does not find "
            f"{', '.join(sorted(wrong)[:5])} again in what it saved itself"
        )
    return model.eval()


@torch.no_grad()
def _logits(model: Any, head: Head, device: torch.device, rows: Sequence[Encoded]) -> Tensor:
    return head.logits(model, head.collate(rows, device))
