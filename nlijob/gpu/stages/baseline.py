"""Scores the base model, with the adapter switched off."""

from __future__ import annotations

from pathlib import Path

from nlijob.errors import NotAvailableError
from nlijob.gpu.environment import memory
from nlijob.gpu.reporting import Part
from nlijob.gpu.session import Session
from nlijob.gpu.stages.texts import measure_beside
from nlijob.gpu.transfer import score_sets
from nlijob.gpu.words import scores_text
from nlijob.records.job import Prediction, ScoreResult
from nlijob.rundir import write_record, write_records


def baseline(session: Session) -> list[Path]:
    """Score validation and test rows, the few-shot control, and further test sets, if asked for."""
    run = session.run
    with session.orders.base_model():
        scores, predictions = session.score("baseline", ("validation", "test"))
        few_shot = _few_shot(session)
        beside = measure_beside(session, "baseline", run.baseline_texts, run.baseline_tasks)
        elsewhere = score_sets(session, "baseline", run.baseline_transfer)
    write_record(run.prompt, session.prompt_record)
    write_records(run.baseline_predictions, predictions)
    write_records(run.few_shot_predictions, few_shot)
    write_record(run.baseline_result, ScoreResult("base", None, scores, memory(session.device)))
    session.reporter.say("baseline", scores_text(scores))
    files = [run.baseline_predictions, run.few_shot_predictions, run.baseline_result, run.prompt]
    return [*files, *beside, *elsewhere]


def _few_shot(session: Session) -> list[Prediction]:
    """Answers on the test rows with training rows in the prompt."""
    if session.config.eval.few_shot == 0:
        return []
    head, _ = session.few_shot
    try:
        rows = head.encode("test", session.kept_examples("test"))
    except NotAvailableError as error:
        raise NotAvailableError(
            f"eval.few_shot: {error.message}", "take fewer examples: lower eval.few_shot, or set 0"
        ) from error
    part = Part("few-shot test", split="test")
    return session.score_rows("baseline", part, "test", head, rows)[1]
