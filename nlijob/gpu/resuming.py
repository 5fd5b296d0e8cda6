"""Finds the latest whole checkpoint of a training, and resumes from it.

What cannot be read, or differs from its marker, is not complete: training then resumes from what
was complete before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nlijob import records
from nlijob.errors import JobError
from nlijob.files import remove
from nlijob.gpu import checkpoints
from nlijob.gpu.saving import STAGE
from nlijob.gpu.session import Session
from nlijob.gpu.training import Trainer, reason
from nlijob.memory import is_out_of_memory
from nlijob.records.job import EpochResult, TrainStep
from nlijob.rundir import (
    EPOCH_MARKER,
    STEP_MARKER,
    RunDir,
    epoch_marker,
    is_of_adapter,
    step_marker,
    write_records,
)


@dataclass
class Saved:
    """What is done of a training."""

    epochs: list[EpochResult] = field(default_factory=list)
    """Results of the complete epochs."""
    log: list[TrainStep] = field(default_factory=list)
    """All steps of the complete epochs."""
    steps: list[TrainStep] = field(default_factory=list)
    """The steps that are done of the epoch after them."""
    damaged: list[str] = field(default_factory=list)
    """What could not be used, in words."""

    def truncate(self, epochs: int) -> None:
        """Forget what follows the first `epochs` epochs."""
        self.epochs = self.epochs[:epochs]
        self.log = [step for step in self.log if step.epoch <= epochs]


def resume(session: Session, trainer: Trainer) -> Saved:
    """What is done; restores model and trainer to the end of that, and removes everything else."""
    run, epochs = session.run, session.config.train.epochs
    fingerprint = session.inputs[STAGE].fingerprint
    saved = whole_epochs(run, fingerprint, epochs)
    if len(saved.epochs) < epochs:
        _restore_latest(session, trainer, saved)
    _remove_others(run, saved)
    write_records(run.train_log, [*saved.log, *saved.steps])
    if saved.log or saved.steps or saved.damaged:
        session.reporter.say(STAGE, _words(saved, epochs, trainer.steps_per_epoch))
    return saved


def whole_epochs(run: RunDir, fingerprint: str, epochs: int) -> Saved:
    """The complete epochs among the first `epochs`, up to the first that is not."""
    saved = Saved()
    for epoch in range(1, epochs + 1):
        fault = _fault(run, epoch_marker(epoch), fingerprint)
        try:
            if fault == "" and not _has_weights(run, epoch):
                fault = f"the weights of epoch {epoch} were not kept"
            if fault == "":
                result = records.read(EpochResult, run.epoch_result(epoch))
                steps = list(records.read_lines(TrainStep, run.epoch_steps(epoch)))
                saved.epochs.append(result)
                saved.log += steps
        except (OSError, ValueError) as error:
            fault = f"epoch {epoch} cannot be read ({reason(error)})"
        if fault:
            saved.damaged.append(fault)
        if fault != "":
            break
    return saved


def _has_weights(run: RunDir, epoch: int) -> bool:
    """Whether the epoch's weights are kept; those of a training that was not chosen are not."""
    marker = run.read_marker(epoch_marker(epoch))
    return marker is not None and any(map(is_of_adapter, marker.files))


def _fault(run: RunDir, name: str, fingerprint: str) -> str | None:
    """What is wrong with what a marker lists, or ""; None if it is not marked, or of other inputs.

    A marker that cannot be read counts as damaged.
    """
    if run.is_complete(name, fingerprint):
        return ""
    if name not in run.marked() or run.is_of_other_inputs(name, fingerprint):
        return None
    marker = run.read_marker(name)
    changed = run.changed(marker.files) if marker else []
    if not changed:
        return f"{run.name(run.marker(name))} cannot be read"
    more = f" and {len(changed) - 1} more" if changed[1:] else ""
    return f"{changed[0]}{more} missing or damaged"


def _restore_latest(session: Session, trainer: Trainer, saved: Saved) -> None:
    """Restore the latest state that is whole; `saved` then holds what was done by that time."""
    before: dict[str, Any] | None = None
    for epochs, step in _places(session.run, session.inputs[STAGE].fingerprint, saved):
        before = before or _state_now(session, trainer)
        try:
            saved.steps = _restore(session, trainer, epochs, step)
        except Exception as error:
            # such as a state of other versions of the libraries: no reason to fail for ever
            if isinstance(error, JobError) or is_out_of_memory(error):
                raise
            name = _name(session.run, epochs, step)
            saved.damaged.append(f"{name} cannot be used ({reason(error)})")
        else:
            saved.truncate(epochs)
            return
    if before:  # which a state that cannot be used may have changed in part
        checkpoints.set_trained_weights(session.loaded.model, before["weights"])
        session.restore(trainer, before["trainer"])
    saved.truncate(0)


def _state_now(session: Session, trainer: Trainer) -> dict[str, Any]:
    """A copy of the weights and of the trainer's state."""
    weights = checkpoints.trained_weights(session.loaded.model)
    state: dict[str, Any] = checkpoints.on_host({"weights": weights, "trainer": trainer.state()})
    return state


def _places(run: RunDir, fingerprint: str, saved: Saved) -> Iterator[tuple[int, int]]:
    """Complete epochs, and steps after them, of each whole checkpoint, the latest first."""
    complete, epoch_is_damaged = len(saved.epochs), bool(saved.damaged)
    for epoch, step in run.marked_steps():
        if epoch == complete + 1:
            fault = _fault(run, step_marker(epoch, step), fingerprint)
            if fault == "":
                yield complete, step
            elif fault:
                saved.damaged.append(fault)
    for epochs in range(complete, 0, -1):
        if run.can_continue_from(epoch_marker(epochs)):
            yield epochs, 0
        elif epochs == complete and not epoch_is_damaged:  # else it was deleted after that epoch
            saved.damaged.append(f"{_name(run, epochs, 0)} missing or damaged")


def _restore(session: Session, trainer: Trainer, epochs: int, step: int) -> list[TrainStep]:
    """Restore model and trainer from a checkpoint; returns the steps after the complete epochs."""
    run, model = session.run, session.loaded.model
    if not step:
        state = checkpoints.load_state(run.training_state(epochs))
        checkpoints.load_adapter(model, run.epoch(epochs))
        session.restore(trainer, state)
        return []
    content = checkpoints.load_state(run.step_state(epochs + 1, step))
    lines = content["steps"].splitlines()
    steps = [records.from_json(TrainStep, records.parse(line)) for line in lines]
    if len(steps) != step:
        raise ValueError(f"it holds {len(steps)} steps")
    checkpoints.set_trained_weights(model, content["weights"])
    session.restore(trainer, content["trainer"])
    return steps


def _name(run: RunDir, epochs: int, step: int) -> str:
    return run.name(run.step_state(epochs + 1, step) if step else run.training_state(epochs))


def _remove_others(run: RunDir, saved: Saved) -> None:
    """Remove what is of other inputs, damaged, or left over: markers first, then files."""
    complete, step = len(saved.epochs), len(saved.steps)
    kept = {epoch_marker(epoch) for epoch in range(1, complete + 1)}
    files = {run.epoch(epoch) for epoch in range(1, complete + 1)}
    if complete:
        files.add(run.training_state(complete))
    if step:
        kept.add(step_marker(complete + 1, step))
        files.add(run.step_state(complete + 1, step))
    for name in run.marked():
        if name.startswith((EPOCH_MARKER, STEP_MARKER)) and name not in kept:
            run.unmark(name)
    if not files or not run.train_folder.is_dir():
        remove(run.train_folder)
        return
    for entry in run.train_folder.iterdir():
        if entry not in files:
            remove(entry)


def _words(saved: Saved, epochs: int, steps_per_epoch: int) -> str:
    """What was damaged, and where training resumes, in one line."""
    complete, step = len(saved.epochs), len(saved.steps)
    parts = [f"epochs 1 to {complete} complete"] if complete else []
    if step:
        parts.append(f"resuming at epoch {complete + 1}, step {step} of {steps_per_epoch}")
    elif complete < epochs:
        parts.append("resuming after them" if complete else "training starts again")
    damaged = f"{'; '.join(saved.damaged)}: " if saved.damaged else ""
    return damaged + ", ".join(parts)
