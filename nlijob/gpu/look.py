"""The process that looks at a model for `plan`: `-m nlijob.gpu.look RUN_DIR`.

The folder holds configuration, task and rows as for a job. It gets `look.json` and an outcome.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from pathlib import Path

from nlijob import stopping
from nlijob.disk import disk_faults
from nlijob.errors import ExitCode
from nlijob.gpu.outcome import outcome_of
from nlijob.planning.child import LOOK
from nlijob.records.job import WorkerOutcome
from nlijob.records.planning import ModelLook
from nlijob.rundir import RunDir, write_record


def main() -> None:
    """Write look and outcome; does not return."""
    run = RunDir(Path(sys.argv[1]))
    stopping.raise_on_signals()
    stopping.stop_when_closed(sys.stdin.fileno())
    gc.disable()  # imports leave almost no garbage, and this process is short
    outcome = _outcome(run)
    with contextlib.suppress(OSError):
        write_record(run.worker_outcome, outcome)
    os._exit(outcome.exit_code)


def _outcome(run: RunDir) -> WorkerOutcome:
    try:
        with disk_faults(run.root):
            write_record(run.root / LOOK, look(run))
    except (Exception, stopping.Stopped) as error:
        return outcome_of(error, run)
    return WorkerOutcome(ExitCode.DONE, "", "")


def look(run: RunDir) -> ModelLook:
    """The look at the model of a run's task. Raises the errors that the job would raise."""
    from nlijob.gpu.model import quiet_libraries
    from nlijob.gpu.model_look import look_at
    from nlijob.gpu.session import Session

    quiet_libraries()
    return look_at(Session(run))


if __name__ == "__main__":
    main()
