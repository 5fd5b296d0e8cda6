"""Chooses the checkpoint by its validation scores alone."""

from __future__ import annotations

from pathlib import Path

from nlijob import records
from nlijob.analysis import selection as rule
from nlijob.analysis.wording import percent
from nlijob.gpu.session import Session
from nlijob.records.job import TrainResult
from nlijob.rundir import write_record


def select(session: Session) -> list[Path]:
    """Write which epoch's checkpoint is kept."""
    run = session.run
    epochs = records.read(TrainResult, run.train_result).epochs
    selection = rule.select(epochs)
    write_record(run.selection, selection)
    session.reporter.say(
        "select",
        f"epoch {selection.epoch} of {len(epochs)}: "
        f"validation accuracy {percent(selection.validation_accuracy)}",
    )
    return [run.selection]
