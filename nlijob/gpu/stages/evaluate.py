"""Scores the selected checkpoint as it is on disk, and gathers evidence for the shown cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nlijob import records
from nlijob.analysis.cases import shown_indices
from nlijob.gpu import checkpoints, evidence
from nlijob.gpu.environment import memory
from nlijob.gpu.generation import generate
from nlijob.gpu.reporting import Part
from nlijob.gpu.session import Session, scores_text
from nlijob.gpu.stages.texts import measure_texts
from nlijob.heads import describe
from nlijob.records.job import (
    Example,
    Generation,
    Occlusion,
    Prediction,
    ScoreResult,
    Selection,
    of_split,
)
from nlijob.rundir import write_record, write_records

STAGE = "evaluate"


def evaluate(session: Session) -> list[Path]:
    """Score validation and test rows with the selected adapter, and copy it out of its epoch."""
    run = session.run
    epoch = records.read(Selection, run.selection).epoch
    checkpoints.load_adapter(session.loaded.model, run.epoch(epoch))
    scores, predictions = session.score(STAGE, ("validation", "test"))
    write_records(run.evaluate_predictions, predictions)
    write_records(run.evaluate_texts, measure_texts(session, STAGE))
    write_records(run.blank_premise_predictions, _blank_premise(session))
    write_records(run.generations, _free_text(session, predictions))
    write_records(run.occlusion, _word_importance(session, predictions))
    write_record(run.evaluate_result, ScoreResult("tuned", epoch, scores, memory(session.device)))
    adapter = checkpoints.copy_adapter(run.epoch(epoch), run.adapter, session.adapter_record)
    session.reporter.say(STAGE, scores_text(scores))
    return [
        run.evaluate_predictions,
        run.evaluate_texts,
        run.blank_premise_predictions,
        run.generations,
        run.occlusion,
        run.evaluate_result,
        run.environment,
        *adapter,
    ]


def _blank_premise(session: Session) -> list[Prediction]:
    """The tuned model's answers on test rows without their premises, where asked for."""
    if not session.config.eval.blank_premise:
        return []
    rows = session.head.encode("test", evidence.blank_premises(session.kept_examples("test")))
    part = Part("premise blanked", split="test")
    return session.score_rows(STAGE, part, "test", session.head, rows)[1]


def _word_importance(session: Session, tuned: Sequence[Prediction]) -> list[Occlusion]:
    """How much each word of the shown cases contributes to both models' answers, where asked."""
    if not session.config.eval.word_importance:
        return []
    shown = _shown(session, tuned)
    altered = {example.index: evidence.leave_one_out(example) for example in shown}
    rows = session.head.encode("test", [a.example for of_row in altered.values() for a in of_row])

    def score(model: str) -> list[Prediction]:
        part = Part(f"word importance, {model}", split="test")
        return session.score_rows(STAGE, part, "test", session.head, rows)[1]

    after = score("tuned")
    with session.loaded.model.disable_adapter():
        before = score("base")
    tuned_answers = {row.index: row for row in of_split(tuned, "test")}
    whole = {row.index: (row, tuned_answers[row.index]) for row in _base_on_test(session)}
    return evidence.word_importance(shown, altered, whole, zip(before, after, strict=True))


def _free_text(session: Session, tuned: Sequence[Prediction]) -> list[Generation]:
    """What both models write after the prompt of each shown case."""
    config = session.config
    count = config.eval.generate_tokens
    if count == 0 or not describe(config.model.head).writes_text:
        return []
    shown = _shown(session, tuned)
    prompts = [row.features["input_ids"] for row in session.head.encode("test", shown)]
    size = config.eval.batch_size
    with session.reporter.timed(STAGE, Part("free output"), 2 * len(prompts)):
        tuned_texts = generate(session.loaded, prompts, count, size)
        with session.loaded.model.disable_adapter():
            base_texts = generate(session.loaded, prompts, count, size)
    indices = [example.index for example in shown]
    texts = [session.head.text(example) for example in shown]
    columns = zip(indices, texts, base_texts, tuned_texts, strict=True)
    return [Generation(*column) for column in columns]


def _shown(session: Session, tuned: Sequence[Prediction]) -> list[Example]:
    """The test rows that the report shows as cases."""
    per_kind = session.config.eval.cases
    indices = set(shown_indices(_base_on_test(session), tuned, per_kind).all)
    return [example for example in session.kept_examples("test") if example.index in indices]


def _base_on_test(session: Session) -> list[Prediction]:
    predictions = records.read_lines(Prediction, session.run.baseline_predictions)
    return of_split(predictions, "test")
