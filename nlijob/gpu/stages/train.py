"""Trains epoch by epoch, and resumes from the latest checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nlijob import records
from nlijob.analysis.wording import loss
from nlijob.gpu.epochs import epoch_result
from nlijob.gpu.parameters import count_parameters
from nlijob.gpu.reporting import Part, checkpoint, optimizer_steps, remaining_steps
from nlijob.gpu.resuming import resume
from nlijob.gpu.saving import STAGE, CheckpointClock, epoch_records, save_epoch, save_steps
from nlijob.gpu.session import Session
from nlijob.gpu.training import Trainer
from nlijob.gpu.words import scores_text
from nlijob.records.job import EpochResult, Plan, Split, TrainResult, TrainStep
from nlijob.rundir import append_record, write_record


def train(session: Session) -> list[Path]:
    """Train and score every epoch that is not complete."""
    run, epochs = session.run, session.config.train.epochs
    with session.reporter.timed(STAGE, Part("warm-up")):
        trainer = session.begin_training()
    saved = resume(session, trainer)
    saved.epochs += _train_epochs(session, trainer, len(saved.epochs) + 1, saved.steps)
    with session.reporter.timed(STAGE, Part("last checkpoint completed", "checkpoint")):
        session.writer.wait()
    parameters = count_parameters(session.loaded.model, session.loaded.targets)
    write_record(run.train_result, TrainResult(parameters, tuple(saved.epochs)))
    write_record(run.plan, records.read(Plan, run.epoch_plan(epochs)))
    of_epochs = [file for epoch in range(1, epochs + 1) for file in epoch_records(run, epoch)]
    return [run.train_result, run.train_log, run.plan, *of_epochs]


def _train_epochs(
    session: Session, trainer: Trainer, first: int, steps: list[TrainStep]
) -> list[EpochResult]:
    """Train the epochs from `first` on, of which these steps are done already."""
    clock = CheckpointClock(session.config.train.checkpoint_every_s, session.writer)
    results = []
    for epoch in range(first, session.config.train.epochs + 1):
        results.append(_train_epoch(session, trainer, epoch, steps, clock))
        steps = []
    return results


def _train_epoch(
    session: Session, trainer: Trainer, epoch: int, steps: list[TrainStep], clock: CheckpointClock
) -> EpochResult:
    show = _progress(session, epoch, steps)
    while len(steps) < trainer.steps_per_epoch:
        _optimize(session, trainer, epoch, steps, clock, show)
        if clock.is_due():
            with session.reporter.timed(STAGE, checkpoint(epoch)):
                save_steps(session, trainer, epoch, steps)
            clock.restart()
    splits: tuple[Split, ...] = ("validation",)
    if session.config.eval.test_each_epoch:
        splits = ("validation", "test")
    scores, predictions = session.score(STAGE, splits, epoch)
    result = epoch_result(epoch, steps, scores["validation"], scores.get("test"), session.device)
    with session.reporter.timed(STAGE, checkpoint(epoch)):
        save_epoch(session, trainer, result, steps, predictions)
    clock.restart()
    session.reporter.say(
        STAGE,
        f"epoch {epoch}: loss {loss(result.train_loss)}, {scores_text(scores)}, "
        f"{result.examples_per_s:.0f} examples/s",
    )
    return result


def _optimize(
    session: Session,
    trainer: Trainer,
    epoch: int,
    steps: list[TrainStep],
    clock: CheckpointClock,
    show: Callable[[TrainStep], None],
) -> None:
    """The epoch's next optimizer steps, to its end or until a checkpoint is due.

    Each is logged and added to `steps` as soon as it is done.
    """
    before = len(steps)

    def examples() -> int:
        return sum(step.examples for step in steps[before:])

    with session.reporter.timed(STAGE, optimizer_steps(epoch), examples):
        for step in session.train_epoch(trainer, epoch, before, clock.is_due):
            append_record(session.run.train_log, step)
            steps.append(step)
            show(step)


def _progress(
    session: Session, epoch: int, steps: Sequence[TrainStep]
) -> Callable[[TrainStep], None]:
    """A function that reports each step; rows that were done in an earlier attempt do not count."""
    total = len(session.rows["train"]) - sum(step.examples for step in steps)
    report = session.reporter.counter(STAGE, remaining_steps(epoch, len(steps)), total, "rows")
    done = 0

    def show(step: TrainStep) -> None:
        nonlocal done
        done += step.examples
        report(done, f"loss {loss(step.loss)}")

    return show
