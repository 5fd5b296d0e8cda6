"""Scores the selected checkpoint of a training as it is on disk."""

from __future__ import annotations

from pathlib import Path

from nlijob import records
from nlijob.gpu.environment import memory
from nlijob.gpu.session import Session
from nlijob.gpu.stages.texts import measure_beside
from nlijob.gpu.transfer import score_sets
from nlijob.gpu.words import scores_text
from nlijob.records.job import ScoreResult, Selection
from nlijob.rundir import write_record, write_records

STAGE = "evaluate"


def evaluate(session: Session) -> list[Path]:
    """Score validation and test rows, and further test sets, with the selected adapter."""
    run = session.run
    epoch = records.read(Selection, run.selection).epoch
    session.load_adapter(epoch)
    scores, predictions = session.score(STAGE, ("validation", "test"))
    write_records(run.evaluate_predictions, predictions)
    beside = measure_beside(session, STAGE, run.evaluate_texts, run.evaluate_tasks)
    elsewhere = score_sets(session, STAGE, run.evaluate_transfer)
    write_record(run.evaluate_result, ScoreResult("tuned", epoch, scores, memory(session.device)))
    session.reporter.say(STAGE, scores_text(scores))
    return [run.evaluate_predictions, run.evaluate_result, *beside, *elsewhere]
