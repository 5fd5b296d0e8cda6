"""Every path of a run on disk, atomic writes, completion markers, and the lock.

A stage is complete when its marker is there, names the fingerprint asked for, and every file it
lists still has its size. Markers are written last, so a stage cut off half-way is never taken for
complete.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nlijob import records
from nlijob.errors import ConfigurationError

MARKERS = "markers/"
"""Beginning of the names of completion markers, below the run's folder."""
TRAIN = "train/"
"""Beginning of the names of what training writes, part of which goes away during the job."""
EPOCH_MARKER = "train-epoch-"
TRAINING_STATES = f"{TRAIN}state-"
"""Beginning of the names of training states, each of which goes away after the next epoch."""
OF_ONE_ATTEMPT = ("worker/task.json", "worker/outcome.json", "worker/progress.jsonl")
"""Messages between the two sides of one attempt, of no use to another attempt."""


class RunDir:
    """The folder `runs/<run_id>`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.json"
        self.environment = root / "environment.json"
        self.machines = root / "machines.jsonl"
        self.manifest = root / "subset" / "manifest.json"
        self.prompt = root / "prompt.json"
        self.baseline_result = root / "baseline" / "result.json"
        self.baseline_predictions = root / "baseline" / "predictions.jsonl"
        self.few_shot_predictions = root / "baseline" / "few_shot.jsonl"
        self.train_folder = root / TRAIN
        self.plan = self.train_folder / "plan.json"
        self.train_log = self.train_folder / "log.jsonl"
        self.train_result = self.train_folder / "result.json"
        self.selection = root / "selection.json"
        self.evaluate_result = root / "evaluate" / "result.json"
        self.evaluate_predictions = root / "evaluate" / "predictions.jsonl"
        self.blank_premise_predictions = root / "evaluate" / "blank_premise.jsonl"
        self.generations = root / "evaluate" / "generations.jsonl"
        self.occlusion = root / "evaluate" / "occlusion.jsonl"
        self.adapter = root / "adapter"
        self.timings = root / "timings.jsonl"
        self.hardware = root / "hardware.jsonl"
        self.results = root / "results.json"
        self.report = root / "report.html"
        self.summary = root / "summary.md"
        self.worker_task, self.worker_outcome, self.progress = (root / n for n in OF_ONE_ATTEMPT)
        self.worker_log = root / "worker" / "log.txt"

    def subset(self, split: str) -> Path:
        """The rows of a split."""
        return self.root / "subset" / f"{split}.jsonl"

    def epoch(self, epoch: int) -> Path:
        """The folder of an epoch's checkpoint."""
        return self.train_folder / f"epoch-{epoch}"

    def epoch_result(self, epoch: int) -> Path:
        """The figures of an epoch."""
        return self.epoch(epoch) / "result.json"

    def epoch_predictions(self, epoch: int) -> Path:
        """Validation (and test) predictions after an epoch."""
        return self.epoch(epoch) / "predictions.jsonl"

    def training_state(self, epoch: int) -> Path:
        """Optimizer, schedule and scaler after an epoch, to go on from; only the last is kept."""
        return self.root / f"{TRAINING_STATES}{epoch}.pt"

    def name(self, path: Path) -> str:
        """A file's name below the run's folder, as it is at the place of a copy too."""
        return path.relative_to(self.root).as_posix()

    # ------------------------------------------------------------ markers

    def marker(self, stage: str) -> Path:
        """The completion marker of a stage, or of an epoch by its `epoch_marker`."""
        return self.root / MARKERS / f"{stage}.json"

    def marked(self) -> list[str]:
        """Names of everything that has a completion marker, epochs in their order."""
        files = (self.root / MARKERS).glob("*.json")
        return sorted((file.stem for file in files), key=lambda name: (len(name), name))

    def count_marked_epochs(self) -> int:
        """How many epochs have a completion marker."""
        return sum(name.startswith(EPOCH_MARKER) for name in self.marked())

    def is_complete(self, stage: str, fingerprint: str) -> bool:
        """Whether the stage was finished from these very inputs and its files are still there."""
        try:
            marker = records.read(records.Marker, self.marker(stage))
        except (OSError, ValueError):
            return False
        return (
            marker.format_version == records.FORMAT_VERSION
            and marker.fingerprint == fingerprint
            and all(_size(self.root / name) == size for name, size in marker.sizes.items())
        )

    def is_of_other_inputs(self, stage: str, fingerprint: str) -> bool:
        """Whether the stage was finished once, from other inputs than these."""
        try:
            return records.read(records.Marker, self.marker(stage)).fingerprint != fingerprint
        except (OSError, ValueError):
            return False

    def mark_complete(self, stage: str, fingerprint: str, outputs: Iterable[Path]) -> None:
        """Write the stage's marker over its outputs (files, or folders with all they hold)."""
        files = [file for path in outputs for file in _files(path)]
        for file in files:
            sync(file)
        sizes = {self.name(file): file.stat().st_size for file in files}
        marker = records.Marker(stage, fingerprint, now(), sizes)
        write_text(self.marker(stage), records.dump(marker))

    def unmark(self, stage: str) -> None:
        """Take a stage for not done, before it is done again."""
        self.marker(stage).unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; two jobs in one folder would mix their records.

        Raises ConfigurationError where another process holds it, or nothing can be written there.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = (self.root / ".lock").open("w")
        except OSError as error:
            raise ConfigurationError(
                f"{self.root} cannot be written to: {error.strerror}",
                "name a folder that can with --runs-dir",
            ) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigurationError(
                    f"another job is working on {self.root}",
                    "wait for it, or give this one another --run-id",
                ) from error
            yield


def epoch_marker(epoch: int) -> str:
    """The name under which an epoch is marked complete."""
    return f"{EPOCH_MARKER}{epoch}"


def training_state_of(marker: str) -> str:
    """Name of the training state that belongs to an epoch's marker file.

    The marker does not list it, because it goes away after the next epoch. For the marker file of
    a stage, a name that no file has.
    """
    epoch = marker.removeprefix(f"{MARKERS}{EPOCH_MARKER}").removesuffix(".json")
    return f"{TRAINING_STATES}{epoch}.pt"


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def sync(path: Path) -> None:
    """Return once a file, or the names in a folder, are safe on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: beside it, synced, then renamed over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)


def write_record(path: Path, record: Any) -> None:
    """Write one record as a JSON file, atomically."""
    write_text(path, records.dump(record))


def write_records(path: Path, items: Iterable[Any]) -> None:
    """Write records as a JSON Lines file, atomically."""
    write_text(path, records.dump_lines(items))


def append_record(path: Path, record: Any) -> None:
    """Add one record to a JSON Lines file; a line is written in one call, so never interleaved."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as handle:
        handle.write(records.dump_line(record))


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
