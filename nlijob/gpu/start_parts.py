"""The parts of the GPU side's start, from its launch to its first work, as they are recorded."""

from __future__ import annotations

import contextlib

from nlijob import records
from nlijob.attempt import Moment
from nlijob.gpu.reporting import WHOLE, Part, Reporter
from nlijob.records.job import WorkerStart, WorkerTask
from nlijob.rundir import RunDir

FROM_LAUNCH = "start, from its launch on"
LAUNCHER = "start, accelerate launch and torch"
LIBRARIES = "start, other libraries"
CONTEXT = "start, GPU context meanwhile"


def report_start(run: RunDir, task: WorkerTask, reporter: Reporter) -> None:
    """Report how long the start took, and what it was spent on as far as that is known."""
    now = Moment.now()
    for part, date_s, since_s in (
        (WHOLE, task.given_at_s, task.given_monotonic_s),
        (Part(FROM_LAUNCH), task.launched_at_s, task.launched_monotonic_s),
    ):
        if since_s is not None:
            reporter.add("start", part, Moment(date_s, since_s), now.monotonic_s - since_s)
    with contextlib.suppress(OSError, ValueError):  # none was written, or the disk has torn it
        start = records.read(WorkerStart, run.worker_start)
        for name, (since_s, until_s) in _parts_of(start, task.launched_monotonic_s).items():
            date_s = now.wall_s - (now.monotonic_s - since_s)
            reporter.add("start", Part(name), Moment(date_s, since_s), until_s - since_s)


def _parts_of(start: WorkerStart, launched_s: float | None) -> dict[str, tuple[float, float]]:
    """Part -> its begin and end, on the machine's monotonic clock."""
    began_s, imported_s = start.began_monotonic_s, start.imported_monotonic_s
    parts = {} if launched_s is None else {LAUNCHER: (launched_s, began_s)}
    parts[LIBRARIES] = began_s, imported_s
    if start.context_s is not None:
        since_s = began_s if launched_s is None else launched_s
        parts[CONTEXT] = since_s, since_s + start.context_s
    return parts
