"""Measures the model on general text and other tasks: what tuning did beside the task."""

from __future__ import annotations

from pathlib import Path

from nlijob import records
from nlijob.gpu.forgetting import encode_texts
from nlijob.gpu.reporting import Part
from nlijob.gpu.session import Session
from nlijob.heads import describe
from nlijob.records.forgetting import GeneralText, TaskList, TaskScore, TextLoss
from nlijob.records.serialization import read_all
from nlijob.rundir import write_records


def measure_beside(session: Session, stage: str, texts: Path, tasks: Path) -> list[Path]:
    """Write the model's losses on general text and its scores in tasks; returns the files.

    Call it after rows were scored with the same weights, which brings the adapter's weights to the
    faster layers.
    """
    write_records(texts, measure_texts(session, stage))
    if not session.run.tasks.exists():
        return [texts]
    write_records(tasks, measure_tasks(session, stage))
    return [texts, tasks]


def measure_tasks(session: Session, stage: str) -> list[TaskScore]:
    """What the model as it is now reaches in the tasks that were asked for."""
    from nlijob.gpu.tasks import score_tasks

    wanted = records.read(TaskList, session.run.tasks)
    with session.reporter.timed(stage, Part("tasks")):
        return score_tasks(session.loaded, wanted, session.config.eval.batch_size)


def measure_texts(session: Session, stage: str) -> list[TextLoss]:
    """The losses of the model as it is now; none where there are no texts or no language model."""
    texts = read_all(GeneralText, session.run.texts)
    if not texts or not describe(session.config.model.head).writes_text:
        return []
    encoded = encode_texts(session.loaded, texts)
    part = Part("general text")
    count = session.reporter.counter(stage, part, len(encoded), "texts")
    with session.reporter.timed(stage, part, len(encoded)):
        return session.text_losses(encoded, count)
