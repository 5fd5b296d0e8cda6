"""Several trainings side by side, each on a GPU of its own.

Each has a folder of its own in the run, which only the process that does it writes to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nlijob.completeness import is_complete
from nlijob.config import JobConfig
from nlijob.gpu.dealing import deal, is_dealt, take_part
from nlijob.gpu.session import Session
from nlijob.gpu.step import do_step
from nlijob.records.job import WorkerTask
from nlijob.trials import Trial, steps_of, trials_of

ORDER = "trials"


def train_side_by_side(session: Session) -> list[Trial]:
    """Do the trainings that are not complete, if that is how the group trains; returns them."""
    trials = trials_of(session.whole_config)
    if not is_dealt(session, len(trials)):
        return []
    missing = [trial for trial in trials if not _is_done(session, trial)]
    if not is_dealt(session, len(missing)):
        return []
    session.of_trial(None)
    _tell_share(session, len(missing))
    deal(session, ORDER, [one.name for one in missing], _train)
    return missing


def follow_trials(
    session: Session, whole: JobConfig, task: WorkerTask, names: Sequence[str], number: int
) -> None:
    """Take part in doing these trainings."""
    session.take(whole, whole, task)
    _tell_share(session, len(names))
    take_part(session, names, number, _train)


def _tell_share(session: Session, trainings: int) -> None:
    """Have the plans of these trainings say how they are done."""
    session.share = "trials", f"{trainings} trainings to do; each process takes the next one"


def _train(session: Session, name: str) -> list[Path]:
    steps = [one for one in steps_of(session.whole_config) if one.trial and one.trial.name == name]
    for step in steps:
        do_step(session, step)
    return session.run.files_of_trial()


def _is_done(session: Session, trial: Trial) -> bool:
    run, inputs = session.run, session.task.inputs
    steps = [step for step in steps_of(session.whole_config) if step.trial == trial]
    return all(is_complete(run, step.key, inputs) for step in steps)
