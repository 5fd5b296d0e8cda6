"""Trains the candidates of a search one after the other, and chooses by their validation scores.

Test rows are scored neither here nor later with a candidate's weights, which are not kept.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nlijob import records
from nlijob.analysis import selection as rule
from nlijob.analysis.wording import loss, percent, settings_text
from nlijob.config import JobConfig
from nlijob.errors import DivergedError, JobError, first_line
from nlijob.files import remove
from nlijob.gpu.dealing import deal, is_dealt, take_part
from nlijob.gpu.epochs import epoch_result
from nlijob.gpu.reporting import Part
from nlijob.gpu.session import Session
from nlijob.gpu.training import Trainer
from nlijob.memory import is_out_of_memory, speaks_of_memory
from nlijob.proposals import proposals
from nlijob.records.job import EpochResult, Prediction, TrainStep, WorkerTask
from nlijob.records.search import CandidateResult, State
from nlijob.rundir import RunDir, candidate_marker, write_record, write_records
from nlijob.sweep import (
    Candidate,
    are_independent,
    candidate_inputs,
    combinations,
    is_behind,
    winner_of,
)

STAGE = "search"
ORDER = "candidates"
STEPS = Part("optimizer steps", "optimizer steps", split="train")
SCORING = Part("validation", "scoring", split="validation")
PREPARATION = Part("warm-up")


def search(session: Session) -> list[Path]:
    """Train every candidate whose result is not there, and write whose settings are taken."""
    run, config = session.run, session.whole_config
    told = _deal_candidates(session)
    propose = proposals(config)
    results: list[CandidateResult] = []
    while candidate := propose(results):
        results.append(_result(session, candidate, results, is_told=candidate.name in told))
    winner = winner_of(results)
    write_record(run.winner, winner)
    session.reporter.say(
        STAGE,
        f"{winner.name} of {len(results)} has the best validation accuracy: "
        f"{settings_text(winner.settings)}",
    )
    return [run.winner, *(file for one in results for file in _files(run, one))]


def follow_candidates(
    session: Session, whole: JobConfig, task: WorkerTask, names: Sequence[str], number: int
) -> None:
    """Take part in training these candidates."""
    session.take(whole, whole, task)
    take_part(session, names, number, _train_listed)


def _deal_candidates(session: Session) -> list[str]:
    """Train the candidates of a search that lists them all, if that is how the group trains.

    Returns their names.
    """
    config = session.whole_config
    if not are_independent(config.sweep):
        return []
    names = [one.name for one in combinations(config)]
    if not is_dealt(session, len(names)):
        return []
    deal(session, ORDER, names, _train_listed)
    return names


def _train_listed(session: Session, name: str) -> list[Path]:
    found = next(one for one in combinations(session.whole_config) if one.name == name)
    result = _result(session, found, ())
    files = [*_files(session.run, result), session.run.marker(candidate_marker(name))]
    return [file for file in files if file.exists()]


def _result(
    session: Session,
    candidate: Candidate,
    earlier: Sequence[CandidateResult],
    is_told: bool = False,
) -> CandidateResult:
    """A candidate's result: the one that is there, or that of its training now.

    `is_told`: whether the user knows of the one that is there.
    """
    run = session.run
    sweep, marker = session.whole_config.sweep, candidate_marker(candidate.name)
    inputs = candidate_inputs(candidate, sweep, session.task.stamps)
    if run.is_complete(marker, inputs.fingerprint):
        result = records.read(CandidateResult, run.candidate_result(candidate.name))
        if not is_told:
            session.reporter.say(STAGE, f"{candidate.name}: complete, skipped")
        return result
    run.unmark(marker)
    remove(run.candidate_result(candidate.name).parent)
    result, predictions = _train(session, candidate, earlier if sweep.pruning else ())
    write_record(run.candidate_result(candidate.name), result)
    if predictions:
        write_records(run.candidate_predictions(candidate.name), predictions)
    if not speaks_of_memory(result.reason):  # else it is tried again, perhaps with more memory
        run.mark_complete(marker, inputs, _files(run, result))
    session.reporter.say(STAGE, _words(result))
    return result


def _files(run: RunDir, result: CandidateResult) -> list[Path]:
    files = [run.candidate_result(result.name)]
    return [*files, run.candidate_predictions(result.name)] if result.epochs else files


@dataclass
class _Training:
    """How far a candidate has come."""

    epochs: list[EpochResult] = field(default_factory=list)
    kept: list[Prediction] = field(default_factory=list)
    """The predictions of its best epoch."""
    state: State = "complete"
    reason: str = ""
    started: float = field(default_factory=time.monotonic)


def _train(
    session: Session, candidate: Candidate, to_compare: Sequence[CandidateResult]
) -> tuple[CandidateResult, list[Prediction]]:
    """Train a candidate to its end, or until it falls behind these others or fails."""
    done = _Training()
    try:
        _train_epochs(session, candidate, to_compare, done)
    except Exception as error:
        done.state, done.reason = "failed", _why_it_failed(session, error)
    if speaks_of_memory(done.reason):
        session.forget_shape()  # only now: the error kept the memory of its frames
    outcome = CandidateResult(
        name=candidate.name,
        settings=candidate.settings,
        state=done.state,
        epochs=tuple(done.epochs),
        selection=rule.select(done.epochs) if done.epochs else None,
        reason=done.reason,
        duration_s=time.monotonic() - done.started,
    )
    return outcome, done.kept


def _train_epochs(
    session: Session,
    candidate: Candidate,
    to_compare: Sequence[CandidateResult],
    done: _Training,
) -> None:
    with session.reporter.timed(STAGE, PREPARATION):
        session.of_candidate(candidate)
        trainer = session.begin_training()
    done.started = time.monotonic()
    for epoch in range(1, candidate.config.train.epochs + 1):
        result, predictions = _epoch(session, trainer, candidate.name, epoch)
        done.epochs.append(result)
        if rule.select(done.epochs).epoch == epoch:
            done.kept = predictions
        if epoch < candidate.config.train.epochs and is_behind(done.epochs, to_compare):
            done.state = "pruned"
            done.reason = f"after epoch {epoch}, below the median of the candidates before it"
            break


def _why_it_failed(session: Session, error: Exception) -> str:
    """What a candidate failed by, if that is its own fault; raises any other error.

    Where the memory of one process runs out, the others wait for it, so that the job must end.
    """
    if isinstance(error, DivergedError):
        return error.message
    if session.group.is_shared or not is_out_of_memory(error):
        raise error
    return error.message if isinstance(error, JobError) else f"out of memory: {first_line(error)}"


def _epoch(
    session: Session, trainer: Trainer, name: str, epoch: int
) -> tuple[EpochResult, list[Prediction]]:
    """Train an epoch and score the validation rows."""
    steps = _optimize(session, trainer, name, epoch)
    validation, predictions = session.score_rows(
        STAGE, SCORING, "validation", session.head, session.rows["validation"]
    )
    result = epoch_result(epoch, steps, validation, None, session.device)
    return result, predictions


def _optimize(session: Session, trainer: Trainer, name: str, epoch: int) -> list[TrainStep]:
    part = Part(f"{name}, epoch {epoch}")
    show = session.reporter.counter(STAGE, part, len(session.rows["train"]), "rows")
    steps: list[TrainStep] = []

    def done() -> int:
        return sum(step.examples for step in steps)

    with session.reporter.timed(STAGE, STEPS, done):
        for step in session.train_epoch(trainer, epoch):
            steps.append(step)
            show(done(), f"loss {loss(step.loss)}")
    return steps


def _words(result: CandidateResult) -> str:
    """A candidate's settings and outcome in a line for the console."""
    what = f"{result.name}: {settings_text(result.settings)}"
    if result.state == "failed":
        return f"{what}: failed ({result.reason})"
    best = result.selection
    figures = f"validation {percent(best.validation_accuracy)}, epoch {best.epoch}" if best else ""
    return f"{what}: {figures}" + (f"; stopped {result.reason}" if result.reason else "")
