"""All paths of a run on disk, atomic writes, completion markers, and the lock.

A stage is complete when its marker exists and carries the expected fingerprint, and every file
that the marker lists still has its size. Markers are written last, so an interrupted stage never
counts as complete.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nlijob import records
from nlijob.errors import ConfigurationError
from nlijob.files import atomic_write, sync
from nlijob.records.job import FORMAT_VERSION, Marker

MARKERS = "markers/"
"""Prefix of the names of completion markers, below the run's folder."""
TRAIN = "train/"
"""Prefix of the names of what training writes; some of it is deleted during the job."""
EPOCH_MARKER = "train-epoch-"
STEP_MARKER = "train-step-"
TRAINING_STATES = f"{TRAIN}state-"
"""Prefix of the names of training states; each is deleted once there is a later one."""
OF_ONE_ATTEMPT = ("worker/task.json", "worker/outcome.json", "worker/progress.jsonl")
"""Messages between the two sides of one attempt; later attempts do not need them."""


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
        self.timings = root / "timings.jsonl"
        self.hardware = root / "hardware.jsonl"
        self.results = root / "results.json"
        self.report = root / "report.html"
        self.summary = root / "summary.md"
        self.worker_task, self.worker_outcome, self.progress = (root / n for n in OF_ONE_ATTEMPT)
        self.worker_log = root / "worker" / "log.txt"

        trial = root  # what belongs to one training; a run has one
        self.train_folder = trial / TRAIN
        self.plan = self.train_folder / "plan.json"
        self.train_log = self.train_folder / "log.jsonl"
        self.train_result = self.train_folder / "result.json"
        self.selection = trial / "selection.json"
        self.evaluate_result = trial / "evaluate" / "result.json"
        self.evaluate_predictions = trial / "evaluate" / "predictions.jsonl"
        self.blank_premise_predictions = trial / "evaluate" / "blank_premise.jsonl"
        self.generations = trial / "evaluate" / "generations.jsonl"
        self.occlusion = trial / "evaluate" / "occlusion.jsonl"
        self.adapter = trial / "adapter"
        self.model_card = self.adapter / "README.md"

    def subset(self, split: str) -> Path:
        """The file with the rows of a split."""
        return self.root / "subset" / f"{split}.jsonl"

    def epoch(self, epoch: int) -> Path:
        """The folder of an epoch's checkpoint."""
        return self.train_folder / f"epoch-{epoch}"

    def epoch_result(self, epoch: int) -> Path:
        """The file with the figures of an epoch."""
        return self.epoch(epoch) / "result.json"

    def epoch_predictions(self, epoch: int) -> Path:
        """The file with validation (and test) predictions after an epoch."""
        return self.epoch(epoch) / "predictions.jsonl"

    def epoch_steps(self, epoch: int) -> Path:
        """The file with the optimizer steps of an epoch, which the training log has too."""
        return self.epoch(epoch) / "steps.jsonl"

    def training_state(self, epoch: int) -> Path:
        """The file with optimizer, schedule and scaler after an epoch; only the last is kept."""
        return self.root / f"{TRAINING_STATES}{epoch}.pt"

    def step_state(self, epoch: int, step: int) -> Path:
        """The checkpoint after a step within an epoch, from 1; deleted once there is a later one.

        It holds the weights, what `training_state` holds, and the steps of the epoch so far.
        """
        return self.root / f"{TRAINING_STATES}{epoch}-{step}.pt"

    def name(self, path: Path) -> str:
        """Path of a file below the run's folder, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    # ------------------------------------------------------------ markers

    def marker(self, stage: str) -> Path:
        """The completion marker of a stage, or of an epoch (see `epoch_marker`)."""
        return self.root / MARKERS / f"{stage}.json"

    def marked(self) -> list[str]:
        """Names of all stages and epochs that have a completion marker, epochs in order."""
        files = (self.root / MARKERS).glob("*.json")
        return sorted((file.stem for file in files), key=lambda name: (len(name), name))

    def count_marked_epochs(self) -> int:
        """Number of epochs that have a completion marker."""
        return sum(name.startswith(EPOCH_MARKER) for name in self.marked())

    def marked_steps(self) -> list[tuple[int, int]]:
        """Epoch and step of each marked checkpoint within an epoch, the latest first."""
        places = (epoch_and_step(name) for name in self.marked())
        return sorted((place for place in places if place), reverse=True)

    def is_complete(self, stage: str, fingerprint: str) -> bool:
        """Whether the stage was completed with these inputs and its files are unchanged in size."""
        try:
            marker = records.read(Marker, self.marker(stage))
        except (OSError, ValueError):
            return False
        return (
            marker.format_version == FORMAT_VERSION
            and marker.fingerprint == fingerprint
            and all(_size(self.root / name) == size for name, size in marker.sizes.items())
        )

    def is_of_other_inputs(self, stage: str, fingerprint: str) -> bool:
        """Whether the stage was completed with other inputs."""
        try:
            return records.read(Marker, self.marker(stage)).fingerprint != fingerprint
        except (OSError, ValueError):
            return False

    def mark_complete(self, stage: str, fingerprint: str, outputs: Iterable[Path]) -> None:
        """Write the stage's marker, which lists its outputs (files, or folders with all files)."""
        files = [file for path in outputs for file in _files(path)]
        for file in files:
            sync(file)
        sizes = {self.name(file): file.stat().st_size for file in files}
        marker = Marker(stage, fingerprint, now(), sizes)
        write_text(self.marker(stage), records.dump(marker))

    def unmark(self, stage: str) -> None:
        """Delete a stage's marker, before the stage is done again."""
        self.marker(stage).unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Reserve the folder for this process: two jobs in one folder would mix their records.

        Raises ConfigurationError where another process holds it or it is not writable.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = (self.root / ".lock").open("w")
        except OSError as error:
            raise ConfigurationError(
                f"{self.root} is not writable: {error.strerror}",
                "choose a writable folder with --runs-dir",
            ) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigurationError(
                    f"another job is working on {self.root}",
                    "wait for it, or choose another --run-id",
                ) from error
            yield


def epoch_marker(epoch: int) -> str:
    """The name under which an epoch is marked complete."""
    return f"{EPOCH_MARKER}{epoch}"


def step_marker(epoch: int, step: int) -> str:
    """The name under which a checkpoint within an epoch is marked complete."""
    return f"{STEP_MARKER}{epoch}-{step}"


def epoch_and_step(marker: str) -> tuple[int, int] | None:
    """Epoch and step of a `step_marker`; None for another marker."""
    found = re.fullmatch(rf"{STEP_MARKER}([1-9]\d{{0,8}})-([1-9]\d{{0,8}})", marker, re.ASCII)
    return (int(found[1]), int(found[2])) if found else None


def training_state_of(marker: str) -> str:
    """Name of the training state that belongs to an epoch's marker file.

    The marker does not list it, because it is deleted after the next epoch. The marker file of a
    stage gives a name that no file has.
    """
    epoch = marker.removeprefix(f"{MARKERS}{EPOCH_MARKER}").removesuffix(".json")
    return f"{TRAINING_STATES}{epoch}.pt"


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with atomic_write(path) as handle:
        handle.write(text.encode("utf-8"))


def write_record(path: Path, record: Any) -> None:
    """Write one record as a JSON file, atomically."""
    write_text(path, records.dump(record))


def write_records(path: Path, items: Iterable[Any]) -> None:
    """Write records as a JSON Lines file, atomically."""
    write_text(path, records.dump_lines(items))


def append_record(path: Path, record: Any) -> None:
    """Append one record to a JSON Lines file, in one write so that lines never interleave."""
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
