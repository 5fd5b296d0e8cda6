"""The GPU side's process, which `accelerate launch` starts as `-m nlijob.gpu RUN_DIR`.

It can be stopped from its first moment on, imports what is heavy, and waits for its task. Once it
has one it leaves an outcome record however it ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from nlijob import stopping
from nlijob.errors import ExitCode
from nlijob.records import WorkerOutcome
from nlijob.rundir import RunDir, write_record

NO_COMPILER = "TORCHDYNAMO_DISABLE"


def main() -> None:
    """Do the work; does not return."""
    run = RunDir(Path(sys.argv[1]))
    stopping.raise_on_signals()
    outcome = _outcome(run)
    write_record(run.worker_outcome, outcome)
    # All is on disk, so the interpreter, its threads and the GPU's memory need not be taken down
    # piece by piece.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(outcome.exit_code)


def _outcome(run: RunDir) -> WorkerOutcome:
    try:
        told = stopping.stop_when_closed(sys.stdin.fileno())
        with _lean_imports():
            from nlijob.gpu import worker
        told.wait()
        return worker.work(run)
    except stopping.Stopped as stop:
        return WorkerOutcome(
            ExitCode.STOPPED, f"stopped ({stop})", "the same command resumes from what is complete"
        )


@contextlib.contextmanager
def _lean_imports() -> Iterator[None]:
    """Import without what takes a fourth of the time and brings nothing.

    That is to search for garbage, of which imports leave next to none, and to load torch's
    compiler for what bitsandbytes would compile where it had no kernels. What is compiled
    afterwards is compiled as ever.
    """
    gc.disable()
    before = os.environ.get(NO_COMPILER)
    os.environ[NO_COMPILER] = "1"
    try:
        yield
    finally:
        del os.environ[NO_COMPILER]
        if before is not None:
            os.environ[NO_COMPILER] = before
        gc.freeze()
        gc.enable()


if __name__ == "__main__":
    main()
