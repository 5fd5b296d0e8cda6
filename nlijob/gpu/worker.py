"""The life of the GPU side: do each stage that is not complete, in order, and say how it ended."""

from __future__ import annotations

import threading
from collections.abc import Callable

from nlijob import records, stopping
from nlijob.disk import disk_faults
from nlijob.errors import ExitCode
from nlijob.gpu import heartbeat
from nlijob.gpu.folders import is_elsewhere, send_rows
from nlijob.gpu.following import follow
from nlijob.gpu.group import Group, is_started_together, join
from nlijob.gpu.keeping import keep_best_weights
from nlijob.gpu.model import quiet_libraries
from nlijob.gpu.outcome import outcome_of
from nlijob.gpu.session import Session
from nlijob.gpu.side_by_side import train_side_by_side
from nlijob.gpu.start_parts import report_start
from nlijob.gpu.step import do_step
from nlijob.records.job import RunRecord, WorkerOutcome
from nlijob.rundir import RunDir
from nlijob.stages import SEARCH, TRIAL_STAGES
from nlijob.trials import Trial, steps_of


def work(run: RunDir) -> WorkerOutcome:
    """Do the run's task; every record is written when this returns. Does not catch `Stopped`."""
    return outcome_of_work(run, _work)


def outcome_of_work(run: RunDir, work_on: Callable[[RunDir], None]) -> WorkerOutcome:
    """How a piece of work ended. Does not catch `Stopped`."""
    quiet_libraries()
    try:
        with disk_faults(run.root):
            work_on(run)
    except Exception as error:
        return outcome_of(error, run)
    return WorkerOutcome(ExitCode.DONE, "", "")


def _work(run: RunDir) -> None:
    device = records.read(RunRecord, run.config).config.model.device
    stop_asked = stopping.exit_where_stop_is_late() if is_started_together() else threading.Event()
    group = join(device)
    with heartbeat.watch(group, run, stop_asked.is_set):
        do_job(run, group)


def do_job(run: RunDir, group: Group) -> None:
    """Do a run's task in a group of processes, each of which calls this. Raises what goes wrong."""
    elsewhere = is_elsewhere(run, group)
    send_rows(run, group, elsewhere)
    session = Session(run, group, elsewhere)
    if group.is_lead:
        _lead(session)
        session.orders.end()
    else:
        follow(session)


def _lead(session: Session) -> None:
    """Do the steps of the job that are not complete."""
    report_start(session.run, session.task, session.reporter)
    config = session.whole_config
    done: list[Trial] = []
    scored: list[Trial] = []
    with session.writer:
        for number in range(len(steps_of(config))):
            step = steps_of(session.whole_config)[number]  # a search settles what follows it
            if step.stage.side != "gpu":
                continue
            if step.trial and not scored:
                done = done or train_side_by_side(session)
            if step.trial not in done:
                do_step(session, step)
            if step.stage.name == SEARCH:
                session.adopt_winner()
            if step.trial and step.stage.name == TRIAL_STAGES[-1]:
                scored.append(step.trial)
                if config.train.keep == "best":
                    session.of_trial(step.trial)
                    keep_best_weights(session.run, scored)
        session.copy_writer.wait()
