"""Writes a training's checkpoints in the background: after each epoch, and within epochs by time.

Each has a marker that is written last. A checkpoint within an epoch is replaced by the next one,
and deleted once the epoch is complete.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlijob import records
from nlijob.disk import disk_fault
from nlijob.files import fresh_folder, remove
from nlijob.gpu import checkpoints
from nlijob.gpu.session import Session
from nlijob.gpu.training import Trainer
from nlijob.gpu.writer import Writer
from nlijob.records.job import EpochResult, Inputs, Plan, Prediction, TrainStep
from nlijob.rundir import RunDir, epoch_marker, step_marker

STAGE = "train"


class CheckpointClock:
    """Says when a checkpoint within an epoch is due."""

    def __init__(self, every_s: float, writer: Writer) -> None:
        """`every_s`: 0 for never. None is due while `writer` is busy, as training does not wait."""
        self._every_s = every_s
        self._writer = writer
        self.restart()

    def restart(self) -> None:
        """Count from now, because a checkpoint is being written."""
        self._since = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time to write a checkpoint."""
        is_time = self._every_s > 0 and time.monotonic() - self._since >= self._every_s
        return is_time and self._writer.is_idle


def save_steps(session: Session, trainer: Trainer, epoch: int, steps: Sequence[TrainStep]) -> None:
    """Start writing a checkpoint within an epoch, after these steps of it."""
    content = {
        "weights": checkpoints.on_host(checkpoints.trained_weights(session.loaded.model)),
        "trainer": checkpoints.on_host(trainer.state()),
    }
    run, inputs, so_far = session.run, session.inputs[STAGE], tuple(steps)

    def write() -> None:
        try:
            _write_steps(run, inputs, epoch, so_far, content)
        except Exception as error:
            # Training needs no such checkpoint; the one at the end of the epoch says more.
            if (fault := disk_fault(error, run.step_state(epoch, len(so_far)))) is None:
                raise
            session.reporter.say(STAGE, f"no checkpoint within the epoch: {fault.message}")

    session.writer.do(write)


def _write_steps(
    run: RunDir, inputs: Inputs, epoch: int, steps: Sequence[TrainStep], content: dict[str, Any]
) -> None:
    place = (epoch, len(steps))
    state = run.step_state(*place)
    checkpoints.save_state({**content, "steps": records.dump_lines(steps)}, state)
    run.mark_complete(step_marker(*place), inputs, [state])
    _delete_step_states(run, [other for other in run.marked_steps() if other != place])


def save_epoch(
    session: Session,
    trainer: Trainer,
    result: EpochResult,
    steps: Sequence[TrainStep],
    predictions: Sequence[Prediction],
) -> None:
    """Start writing an epoch's checkpoint, in parallel with the next epoch."""
    last = result.epoch == session.config.train.epochs
    run, inputs = session.run, session.inputs[STAGE]  # of this training
    content = _Epoch(
        result,
        session.plan(),  # now, as the next epoch may change it
        steps,
        predictions,
        checkpoints.on_host(checkpoints.trained_weights(session.loaded.model)),
        None if last else checkpoints.on_host(trainer.state()),  # nothing resumes from the last
    )
    session.writer.do(lambda: _write_epoch(session, run, inputs, content))


@dataclass(frozen=True)
class _Epoch:
    """What an epoch's checkpoint holds; weights and state are copies in host memory."""

    result: EpochResult
    plan: Plan
    steps: Sequence[TrainStep]
    predictions: Sequence[Prediction]
    weights: dict[str, Any]
    state: dict[str, Any] | None


def _write_epoch(session: Session, run: RunDir, inputs: Inputs, content: _Epoch) -> None:
    epoch, state = content.result.epoch, content.state
    with fresh_folder(run.epoch(epoch)) as folder:
        checkpoints.save_adapter(
            session.loaded.model, folder, session.config.model, content.weights
        )
        for file, text in (
            (run.epoch_steps(epoch), records.dump_lines(content.steps)),
            (run.epoch_predictions(epoch), records.dump_lines(content.predictions)),
            (run.epoch_result(epoch), records.dump(content.result)),
            (run.epoch_plan(epoch), records.dump(content.plan)),
        ):  # without a sync for each, as the folder is synced as a whole
            (folder / file.name).write_text(text, encoding="utf-8")
    if state is not None:
        checkpoints.save_state(state, run.training_state(epoch))
    adapter = [run.epoch(epoch) / name for name in checkpoints.ADAPTER_FILES]
    run.mark_complete(
        epoch_marker(epoch),
        inputs,
        [*adapter, *epoch_records(run, epoch)],
        to_continue=[] if state is None else [run.training_state(epoch)],
    )
    _delete_step_states(run, run.marked_steps())
    remove(run.training_state(epoch - 1))


def epoch_records(run: RunDir, epoch: int) -> list[Path]:
    """The files of an epoch that are read after training, whichever epoch is selected."""
    return [
        run.epoch_steps(epoch),
        run.epoch_predictions(epoch),
        run.epoch_result(epoch),
        run.epoch_plan(epoch),
    ]


def _delete_step_states(run: RunDir, places: Sequence[tuple[int, int]]) -> None:
    """Delete checkpoints within epochs, each after its marker."""
    for place in places:
        run.unmark(step_marker(*place))
        remove(run.step_state(*place))
