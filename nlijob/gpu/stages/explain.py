"""Keeps the adapter of the best training, and gathers evidence for the shown cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nlijob import records
from nlijob.analysis.cases import shown_indices
from nlijob.analysis.read_trials import read_trials
from nlijob.analysis.selection import RULE_OF_TRIALS, best_of
from nlijob.analysis.trials import right_in
from nlijob.analysis.wording import percent
from nlijob.files import remove
from nlijob.gpu import checkpoints, evidence
from nlijob.gpu.reporting import Part
from nlijob.gpu.session import Session
from nlijob.heads import describe
from nlijob.records.job import (
    Choice,
    Example,
    Generation,
    Occlusion,
    Prediction,
    Selection,
    of_split,
)
from nlijob.rundir import write_record, write_records
from nlijob.trials import Trial, trials_of

STAGE = "explain"


def explain(session: Session) -> list[Path]:
    """Choose the training to keep, copy its adapter out of its epoch, and examine its answers."""
    trials = {trial.name: trial for trial in trials_of(session.whole_config)}
    selections = {
        name: records.read(Selection, session.run.of_trial(trial).selection)
        for name, trial in trials.items()
    }
    best = trials[best_of(selections)]
    epoch = selections[best.name].epoch
    choice = _choice(session, best, selections)
    session.of_trial(best)
    session.load_adapter(epoch)
    run = session.run
    predictions = list(records.read_lines(Prediction, run.evaluate_predictions))
    write_records(run.blank_premise_predictions, _blank_premise(session))
    shown = _shown(session, predictions)
    write_records(run.generations, _free_text(session, shown))
    write_records(run.occlusion, _word_importance(session, predictions, shown))
    adapter = checkpoints.copy_adapter(run.epoch(epoch), run.adapter, session.adapter_record)
    return [
        *choice,
        run.blank_premise_predictions,
        run.generations,
        run.occlusion,
        run.environment,
        *adapter,
    ]


def _choice(session: Session, best: Trial, selections: dict[str, Selection]) -> list[Path]:
    """Record the choice between several trainings; returns the record, or nothing for one."""
    file = session.run.choice
    if len(selections) == 1:
        remove(file)
        session.reporter.say(STAGE, f"adapter of epoch {selections[best.name].epoch} kept")
        return []
    accuracy = selections[best.name].validation_accuracy
    epoch = selections[best.name].epoch
    choice = Choice(best.name, RULE_OF_TRIALS, epoch, accuracy, len(selections))
    write_record(file, choice)
    session.reporter.say(
        STAGE, f"kept {best.name} of {len(selections)}: validation accuracy {percent(accuracy)}"
    )
    return [file]


def _blank_premise(session: Session) -> list[Prediction]:
    """The tuned model's answers on test rows without their premises, where asked for."""
    if not session.config.eval.blank_premise:
        return []
    rows = session.head.encode("test", evidence.blank_premises(session.kept_examples("test")))
    part = Part("premise blanked", split="test")
    return session.score_rows(STAGE, part, "test", session.head, rows)[1]


def _word_importance(
    session: Session, tuned: Sequence[Prediction], shown: Sequence[Example]
) -> list[Occlusion]:
    """How much each word of the shown cases contributes to both models' answers, where asked."""
    if not session.config.eval.word_importance:
        return []
    altered = {example.index: evidence.leave_one_out(example) for example in shown}
    rows = session.head.encode("test", [a.example for of_row in altered.values() for a in of_row])

    def score(model: str) -> list[Prediction]:
        part = Part(f"word importance, {model}", split="test")
        return session.score_rows(STAGE, part, "test", session.head, rows)[1]

    after = score("tuned")
    with session.orders.base_model():
        before = score("base")
    tuned_answers = {row.index: row for row in of_split(tuned, "test")}
    whole = {row.index: (row, tuned_answers[row.index]) for row in _base_on_test(session)}
    return evidence.word_importance(shown, altered, whole, zip(before, after, strict=True))


def _free_text(session: Session, shown: Sequence[Example]) -> list[Generation]:
    """What both models write after the prompt of each shown case."""
    config = session.config
    if config.eval.generate_tokens == 0 or not describe(config.model.head).writes_text:
        return []
    prompts = [row.features["input_ids"] for row in session.head.encode("test", shown)]
    with session.reporter.timed(STAGE, Part("free output"), 2 * len(prompts)):
        base_texts, tuned_texts = session.write(prompts)
    indices = [example.index for example in shown]
    texts = [session.head.text(example) for example in shown]
    columns = zip(indices, texts, base_texts, tuned_texts, strict=True)
    return [Generation(*column) for column in columns]


def _shown(session: Session, tuned: Sequence[Prediction]) -> list[Example]:
    """The test rows that the report shows as cases."""
    per_kind = session.config.eval.cases
    examples = session.kept_examples("test")
    trials = read_trials(session.run, session.whole_config, examples)
    base, counts = _base_on_test(session), right_in(trials) if trials else None
    indices = set(shown_indices(base, tuned, per_kind, counts).all)
    return [example for example in examples if example.index in indices]


def _base_on_test(session: Session) -> list[Prediction]:
    predictions = records.read_lines(Prediction, session.run.baseline_predictions)
    return of_split(predictions, "test")
