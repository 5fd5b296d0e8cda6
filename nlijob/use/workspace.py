"""The folder in which the GPU side works for `predict` and `export`: a run in small, for a while.

It has what the session of the GPU side reads of a run: configuration, rows and task. So a finished
run is only read, and its records and times stay as they are.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from nlijob import __version__
from nlijob.config import JobConfig
from nlijob.errors import ExitCode, JobError
from nlijob.launch import GpuSide
from nlijob.records.job import Example, RunRecord, WorkerTask
from nlijob.records.use import UseTask
from nlijob.rundir import RunDir, now, write_record, write_records


class Workspace:
    """Paths and records of the folder."""

    def __init__(self, root: Path) -> None:
        self.run = RunDir(root)
        self.task = root / "use.json"
        self.count = root / "chunks" / "count.json"
        self.merged = root / "merged.json"
        self.predictions = root / "predictions.jsonl"

    def chunk(self, number: int) -> Path:
        """The file with the rows of a chunk, from 1."""
        return self.run.root / "chunks" / f"{number}.json"

    def scored(self, number: int) -> Path:
        """The file with the labels of a chunk."""
        return self.run.root / "chunks" / f"{number}-scored.json"

    def prepare(
        self,
        config: JobConfig,
        task: UseTask,
        train: Sequence[Example],
        test: Sequence[Example] = (),
    ) -> None:
        """Write what the GPU side reads before it gets its task."""
        record = RunRecord("", "", config, (), now(), __version__)
        write_record(self.run.config, record)
        for split, rows in (("train", train), ("validation", ()), ("test", test)):
            write_records(self.run.subset(split), rows)
        write_record(self.task, task)
        self.count.parent.mkdir()

    def give(self, gpu_side: GpuSide, model_dir: Path, model_stamp: str) -> None:
        """Have the GPU side begin."""
        gpu_side.give(
            WorkerTask(
                attempt=1,
                launched_at_s=gpu_side.launched.wall_s,
                given_at_s=time.time(),
                model_dir=str(model_dir.absolute()),
                model_stamp=model_stamp,
                inputs={},
            )
        )


@contextlib.contextmanager
def workspace() -> Iterator[Workspace]:
    """A new folder for temporary files; it is deleted, unless an internal error needs its log."""
    root = Path(tempfile.mkdtemp(prefix="nlijob-"))
    keep = False
    try:
        yield Workspace(root)
    except JobError as error:
        keep = error.exit_code == ExitCode.INTERNAL
        raise
    finally:
        if not keep:
            shutil.rmtree(root, ignore_errors=True)
