"""Trains epoch by epoch, and resumes after the last complete epoch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlijob import records
from nlijob.gpu import checkpoints
from nlijob.gpu.environment import memory
from nlijob.gpu.parameters import count_parameters
from nlijob.gpu.reporting import Part, checkpoint, optimizer_steps
from nlijob.gpu.session import Session, scores_text
from nlijob.gpu.training import Trainer
from nlijob.records.job import EpochResult, Prediction, Split, TrainResult, TrainStep
from nlijob.rundir import RunDir, append_record, epoch_marker, write_record, write_records

STAGE = "train"


def train(session: Session) -> list[Path]:
    """Train and score every epoch that is not complete."""
    run = session.run
    with session.reporter.timed(STAGE, Part("warm-up")):
        trainer = session.engine.trainer()
    epochs = resume(session, trainer)
    write_record(run.plan, session.engine.plan())
    for epoch in range(len(epochs) + 1, session.config.train.epochs + 1):
        epochs.append(_train_epoch(session, trainer, epoch))
    write_record(run.plan, session.engine.plan())  # the mode may have changed during training
    with session.reporter.timed(STAGE, Part("last checkpoint completed", "checkpoint")):
        session.writer.wait()
    parameters = count_parameters(session.loaded.model, session.config.lora.target_modules)
    write_record(run.train_result, TrainResult(parameters, tuple(epochs)))
    return [run.train_result, run.train_log, run.plan]


def resume(session: Session, trainer: Trainer) -> list[EpochResult]:
    """Results of the complete epochs; restores trainer and model to the end of the last one."""
    run, epochs = session.run, session.config.train.epochs
    complete = _complete_epochs(run, session.task.inputs[STAGE].fingerprint, epochs)
    for epoch in range(complete + 1, epochs + 1):
        run.unmark(epoch_marker(epoch))
    if complete == 0:
        shutil.rmtree(run.train_folder, ignore_errors=True)
        return []
    results = [records.read(EpochResult, run.epoch_result(e)) for e in range(1, complete + 1)]
    if complete < epochs:
        state = checkpoints.load_state(run.training_state(complete), session.device)
        checkpoints.load_adapter(session.loaded.model, run.epoch(complete))
        trainer.restore(state)
    steps = records.read_lines(TrainStep, run.train_log)
    write_records(run.train_log, [step for step in steps if step.epoch <= complete])
    session.reporter.say(STAGE, f"epochs 1 to {complete} complete, resuming after them")
    return results


def _complete_epochs(run: RunDir, fingerprint: str, epochs: int) -> int:
    """Number of complete epochs after which training can continue."""
    complete = 0
    while run.is_complete(epoch_marker(complete + 1), fingerprint):
        complete += 1
    if complete == epochs:
        return complete
    while complete and not run.can_continue_from(epoch_marker(complete)):
        complete -= 1
    return complete


def _train_epoch(session: Session, trainer: Trainer, epoch: int) -> EpochResult:
    steps = _optimize(session, trainer, epoch)
    splits: tuple[Split, ...] = ("validation",)
    if session.config.eval.test_each_epoch:
        splits = ("validation", "test")
    scores, predictions = session.score(STAGE, splits, epoch)
    examples = sum(step.examples for step in steps)
    result = EpochResult(
        epoch=epoch,
        steps=len(steps),
        examples=examples,
        train_loss=sum(step.loss * step.examples for step in steps) / examples,
        duration_s=sum(step.duration_s for step in steps),
        validation=scores["validation"],
        test=scores.get("test"),
        memory=memory(session.device),
    )
    with session.reporter.timed(STAGE, checkpoint(epoch)):
        _keep(session, trainer, result, predictions)
    session.reporter.say(
        STAGE,
        f"epoch {epoch}: loss {result.train_loss:.3f}, {scores_text(scores)}, "
        f"{result.examples_per_s:.0f} examples/s",
    )
    return result


def _optimize(session: Session, trainer: Trainer, epoch: int) -> list[TrainStep]:
    """The epoch's optimizer steps, each logged as soon as it is done."""
    part, total = optimizer_steps(epoch), len(session.rows["train"])
    show = session.reporter.counter(STAGE, part, total, "rows")
    steps: list[TrainStep] = []
    done = 0
    with session.reporter.timed(STAGE, part, total):
        for step in trainer.epoch(epoch):
            append_record(session.run.train_log, step)
            steps.append(step)
            done += step.examples
            show(done, f"loss {step.loss:.3f}")
    return steps


def _keep(
    session: Session, trainer: Trainer, result: EpochResult, predictions: Sequence[Prediction]
) -> None:
    """Start writing the epoch's checkpoint, in parallel with the next epoch."""
    last = result.epoch == session.config.train.epochs
    state = None if last else checkpoints.on_host(trainer.state())  # nothing resumes from the last
    weights = checkpoints.on_host(checkpoints.trained_weights(session.loaded.model))
    session.writer.do(lambda: _write(session, weights, state, result, predictions))


def _write(
    session: Session,
    weights: dict[str, Any],
    state: dict[str, Any] | None,
    result: EpochResult,
    predictions: Sequence[Prediction],
) -> None:
    """Write a checkpoint; its marker comes last and makes it one to resume from."""
    run, epoch = session.run, result.epoch
    folder = run.epoch(epoch)
    checkpoints.save_adapter(session.loaded.model, folder, session.config.model, weights)
    if state is not None:
        checkpoints.save_state(state, run.training_state(epoch))
    write_records(run.epoch_predictions(epoch), predictions)
    write_record(run.epoch_result(epoch), result)
    run.mark_complete(
        epoch_marker(epoch),
        session.task.inputs[STAGE],
        [*folder.glob("adapter_*"), run.epoch_predictions(epoch), run.epoch_result(epoch)],
        to_continue=[] if state is None else [run.training_state(epoch)],
    )
    run.training_state(epoch - 1).unlink(missing_ok=True)
