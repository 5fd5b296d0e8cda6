"""All paths of a run on disk, atomic writes, completion markers, and the lock.

A stage is complete when its marker exists and carries the expected fingerprint, and every file
that the marker lists still has its size and its SHA-256. Markers are written last, so an
interrupted stage never counts as complete.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from nlijob import disk, records
from nlijob.errors import ConfigurationError, DiskError
from nlijob.files import Piece, append, atomic_write, remove, sha256_of, sync
from nlijob.records.job import FORMAT_VERSION, SPLITS, FileStamp, Inputs, Marker
from nlijob.records.use import ADAPTER_RECORD
from nlijob.stages import TRIAL_STAGES
from nlijob.trials import Trial

MARKERS = "markers/"
"""Prefix of the names of completion markers, below the run's folder."""
TRIALS = "trials/"
"""Prefix of the names of what the trainings write, where there are several."""
TRAIN = "train/"
"""Prefix of the names of what training writes, below the training's folder; some of it is deleted
during the job."""
EPOCH_MARKER = "train-epoch-"
STEP_MARKER = "train-step-"
TRAINING_STATES = f"{TRAIN}state-"
"""Prefix of the names of training states, below the training's folder; each is deleted once there
is a later one."""
PREVIOUS = ".previous"
"""Ending of the folder's name under which a finished run is kept when other settings replace it."""
GPU_SIDE_ENDS_S = 40.0
"""Within this time a GPU side ends whose parent was killed; it is twice what it is granted."""
POLL_S = 0.1
OF_ONE_ATTEMPT = (
    "worker/task.json",
    "worker/outcome.json",
    "worker/progress.jsonl",
    "worker/failure.json",
    "worker/start.json",
)
"""Messages between the two sides of one attempt; later attempts do not need them."""
OUTCOME_OF = "worker/outcome-"
"""Prefix of the names of more such messages: one of each process of the GPU side but the first."""
NOT_COPIED = (*OF_ONE_ATTEMPT, "worker/accelerate.json", "worker/console.txt")
"""Files that stay on their machine. The last of the lines printed tells that the rest is copied."""


class RunDir:
    """The folder `runs/<run_id>`, seen by the run as a whole or by one of its trainings.

    A single training is kept in the run's own folder. Each of several has a folder of its own, with
    markers of its own; all else is the run's, and so the same in every view.
    """

    def __init__(self, root: Path, trial: str = "") -> None:
        """`trial`: a training's folder below the run's (see `nlijob.trials`); "" for the run."""
        self.root = root
        self.trial = trial
        self._locks = contextlib.ExitStack()
        self._hashes: dict[Path, tuple[_State, str]] = {}
        """File -> its state when it was hashed, and the hash: no file is hashed twice."""
        self.config = root / "config.json"
        self.environment = root / "environment.json"
        self.machines = root / "machines.jsonl"
        self.manifest = root / "subset" / "manifest.json"
        self.elsewhere_manifest = root / "elsewhere" / "manifest.json"
        self.texts = root / "elsewhere" / "text" / "general.jsonl"
        self.tasks = root / "elsewhere" / "text" / "tasks.json"
        self.prompt = root / "prompt.json"
        self.baseline_result = root / "baseline" / "result.json"
        self.baseline_predictions = root / "baseline" / "predictions.jsonl"
        self.few_shot_predictions = root / "baseline" / "few_shot.jsonl"
        self.winner = root / "search" / "winner.json"
        self.best_recipe = root / "best.toml"
        self.baseline_texts = root / "baseline" / "texts.jsonl"
        self.baseline_tasks = root / "baseline" / "tasks.jsonl"
        self.timings = root / "timings.jsonl"
        self.hardware = root / "hardware.jsonl"
        self.results = root / "results.json"
        self.figures = root / "figures.json"
        self.report = root / "report.html"
        self.summary = root / "summary.md"
        messages = (root / name for name in OF_ONE_ATTEMPT)
        self.worker_task, self.worker_outcome, self.progress, *further = messages
        self.worker_failure, self.worker_start = further
        self.worker_log = root / "worker" / "log.txt"
        self.worker_lock = root / "worker" / ".lock"
        self.accelerate_config = root / "worker" / "accelerate.json"
        self.console_log = root / "worker" / "console.txt"

        self.tracking = root / "tracking"
        self.trials = root / TRIALS
        self.choice = root / "choice.json"
        self.blank_premise_predictions = root / "evaluate" / "blank_premise.jsonl"
        self.generations = root / "evaluate" / "generations.jsonl"
        self.occlusion = root / "evaluate" / "occlusion.jsonl"
        self.adapter = root / "adapter"
        self.model_card = self.adapter / "README.md"
        self.adapter_record = self.adapter / ADAPTER_RECORD

        own = root / trial  # what belongs to one training
        self.train_folder = own / TRAIN
        self.plan = self.train_folder / "plan.json"
        self.train_log = self.train_folder / "log.jsonl"
        self.train_result = self.train_folder / "result.json"
        self.selection = own / "selection.json"
        self.evaluate_result = own / "evaluate" / "result.json"
        self.evaluate_predictions = own / "evaluate" / "predictions.jsonl"
        self.evaluate_texts = own / "evaluate" / "texts.jsonl"
        self.evaluate_tasks = own / "evaluate" / "tasks.jsonl"

    def of_trial(self, trial: Trial) -> RunDir:
        """The run as one of its trainings sees it."""
        return self.view(trial.folder)

    def view(self, folder: str) -> RunDir:
        """The run as the training in this folder below it sees it; "" for the run as a whole."""
        if folder == self.trial:
            return self
        view = RunDir(self.root, folder)
        view._hashes = self._hashes
        return view

    def at(self, key: str) -> tuple[RunDir, str]:
        """The view in which a stage is done, and its plain name, by its name within the run.

        "trials/seed-43/train" -> the view of that training, "train" (see `Trial.key`).
        """
        folder, _, stage = key.rpartition("/")
        return self.view(folder), stage

    def files_of_trial(self) -> list[Path]:
        """The folders with all that the training made, in its view, and its markers after them."""
        return [self.root / self.trial, self.marker("train").parent]

    @property
    def previous(self) -> Path:
        """The folder in which a finished run is kept when one of other settings replaces it."""
        root = self.root.absolute()
        return root.with_name(root.name + PREVIOUS)

    def subset(self, split: str) -> Path:
        """The file with the rows of a split."""
        return self.root / "subset" / f"{split}.jsonl"

    def row_files(self) -> list[Path]:
        """The files and folders with all rows that a model is trained on or scored on."""
        return [self.subset(split) for split in SPLITS] + [self.elsewhere_manifest.parent]

    def elsewhere(self, name: str) -> Path:
        """The file with the rows of a further test set."""
        return self.elsewhere_manifest.with_name(f"{name}.jsonl")

    def baseline_transfer(self, name: str) -> Path:
        """The file with the base model's answers to a further test set."""
        return self.baseline_predictions.parent / "transfer" / f"{name}.jsonl"

    def evaluate_transfer(self, name: str) -> Path:
        """The file with the tuned model's answers to a further test set."""
        return self.evaluate_predictions.parent / "transfer" / f"{name}.jsonl"

    def tracker_state(self, tracker: str) -> Path:
        """The file that says what a tracker was told."""
        return self.tracking / f"{tracker}.json"

    def candidate_result(self, name: str) -> Path:
        """The file with the figures of a candidate of the search."""
        return self.winner.parent / name / "result.json"

    def candidate_predictions(self, name: str) -> Path:
        """The file with a candidate's answers to the validation rows, after its selected epoch."""
        return self.winner.parent / name / "predictions.jsonl"

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

    def epoch_plan(self, epoch: int) -> Path:
        """The file with the execution mode at the end of an epoch."""
        return self.epoch(epoch) / "plan.json"

    def training_state(self, epoch: int) -> Path:
        """The file with optimizer, schedule and scaler after an epoch; only the last is kept."""
        return self.root / self.trial / f"{TRAINING_STATES}{epoch}.pt"

    def step_state(self, epoch: int, step: int) -> Path:
        """The checkpoint after a step within an epoch, from 1; deleted once there is a later one.

        It holds the weights, what `training_state` holds, and the steps of the epoch so far.
        """
        return self.root / self.trial / step_state_name(epoch, step)

    def name(self, path: Path) -> str:
        """Path of a file below the run's folder, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    # ------------------------------------------------------------ damage

    def clear_misplaced(self) -> list[str]:
        """Delete what is no file where a file belongs, or no folder where a folder belongs.

        Such a thing would make every write there fail. Returns the names of what was deleted.
        """
        folders = [self.root / MARKERS, self.manifest.parent, self.train_folder, self.adapter]
        folders += [
            self.trials,
            self.tracking,
            self.baseline_transfer("").parent,
            self.evaluate_transfer("").parent,
        ]
        paths = [path for path in vars(self).values() if isinstance(path, Path)]
        files = [path for path in paths if path not in (self.root, *folders)]
        files += [*map(self.subset, SPLITS), *map(self.marker, self.marked())]
        folders += [file.parent for file in files if file.parent != self.root]
        wrong = [path for path in sorted({*folders}) if _is_there(path) and not path.is_dir()]
        wrong += [path for path in files if _is_there(path) and not path.is_file()]
        for path in wrong:
            remove(path)
        return [self.name(path) for path in wrong]

    # ------------------------------------------------------------ markers

    def marker(self, stage: str) -> Path:
        """The completion marker of a stage, or of an epoch (see `epoch_marker`)."""
        own = self.trial if is_of_trial(stage) else ""
        return self.root / MARKERS / own / f"{stage}.json"

    def marked(self) -> list[str]:
        """Names of what has a completion marker: stages, and epochs in order.

        The view of the run as a whole has those of its trainings as well, by the names
        "trials/seed-43/train".
        """
        folder = self.root / MARKERS
        if self.trial:
            of_run = [file.stem for file in folder.glob("*.json") if not is_of_trial(file.stem)]
            names = [*of_run, *(file.stem for file in (folder / self.trial).glob("*.json"))]
        else:
            files = folder.rglob("*.json")
            names = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
        return sorted(names, key=lambda name: (len(name), name))

    def count_marked_epochs(self) -> int:
        """Number of epochs that have a completion marker."""
        return sum(name.startswith(EPOCH_MARKER) for name in self.marked())

    def marked_steps(self) -> list[tuple[int, int]]:
        """Epoch and step of each marked checkpoint within an epoch, the latest first."""
        places = (epoch_and_step(name) for name in self.marked())
        return sorted((place for place in places if place), reverse=True)

    def read_marker(self, stage: str) -> Marker | None:
        """The completion marker of a stage or an epoch; None where there is no readable one.

        One whose fingerprint is not that of its inputs counts as unreadable.
        """
        try:
            marker = records.read(Marker, self.marker(stage))
            inputs = marker.inputs
            is_sound = inputs is None or inputs.fingerprint == marker.fingerprint
        except (OSError, ValueError, RecursionError):  # inputs may be nested deeply
            return None
        return marker if is_sound else None

    def is_complete(self, stage: str, fingerprint: str) -> bool:
        """Whether the stage was completed with these inputs and its files are unchanged."""
        marker = self.read_marker(stage)
        return (
            marker is not None
            and marker.format_version == FORMAT_VERSION
            and marker.fingerprint == fingerprint
            and not self.changed(marker.files)
        )

    def can_continue_from(self, epoch: str) -> bool:
        """Whether the files are whole that are needed to continue after a marked epoch.

        They are the ones that `mark_complete` was given as `to_continue`. False if there were none.
        """
        marker = self.read_marker(epoch)
        return bool(marker and marker.to_continue and not self.changed(marker.to_continue))

    def is_of_other_inputs(self, stage: str, fingerprint: str) -> bool:
        """Whether the stage was completed with other inputs."""
        marker = self.read_marker(stage)
        return marker is not None and marker.fingerprint != fingerprint

    def changed(self, files: Mapping[str, FileStamp]) -> list[str]:
        """Names of the files that are missing or differ from their stamp.

        Files whose size differs are not read. The others are hashed once for each `RunDir`.
        """
        states = {name: _state(self.root / name) for name in files}
        whole = [
            name
            for name, stamp in files.items()
            if (state := states[name]) and state.size_bytes == stamp.size_bytes
        ]
        hashes = self._sha256_of([name for name in whole if files[name].sha256 is not None])
        same = {name for name in whole if hashes.get(name) == files[name].sha256}
        return [name for name in files if name not in same]

    def mark_complete(
        self,
        stage: str,
        inputs: Inputs,
        outputs: Iterable[Path],
        to_continue: Iterable[Path] = (),
    ) -> None:
        """Write the marker of a stage or an epoch, which lists its files.

        `outputs` void the marker once they are missing or changed; files in `to_continue` may be
        deleted later (see `can_continue_from`). Raises OSError where one of the files is missing.
        """
        marker = Marker(
            stage,
            inputs.fingerprint,
            now(),
            self._stamps(outputs),
            self._stamps(to_continue),
            inputs,
        )
        write_text(self.marker(stage), records.dump(marker))

    def unmark(self, stage: str) -> None:
        """Delete a stage's marker, before the stage is done again."""
        remove(self.marker(stage))

    def _stamps(self, files: Iterable[Path]) -> dict[str, FileStamp]:
        """Name -> stamp of files that were just written, once they are safe on disk."""
        names = []
        for file in files:
            sync(file)
            names.append(self.name(file))
        hashes = self._sha256_of(names)
        return {name: FileStamp((self.root / name).stat().st_size, hashes[name]) for name in names}

    def _sha256_of(self, names: Iterable[str]) -> dict[str, str]:
        """Name -> SHA-256; a file that is in the state in which it was hashed is not read again."""
        states = {name: _state(self.root / name) for name in names}
        known = self._hashes
        unread = [n for n, state in states.items() if known.get(self.root / n, (None,))[0] != state]
        found = sha256_of(Piece(self.root / name) for name in unread)
        for name, hash_ in zip(unread, found, strict=True):
            if state := states[name]:
                known[self.root / name] = (state, hash_)
        return {name: known[self.root / name][1] for name in states}

    def sha256_of(self, file: Path) -> str:
        """SHA-256 of a file below the run's folder, in hexadecimal digits. Raises OSError."""
        name = self.name(file)
        return self._sha256_of([name])[name]

    @contextlib.contextmanager
    def lock(self, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Reserve the folder for this process: two jobs in one folder would mix their records.

        Where another process holds it: wait for its end, after a call of `on_wait`. Without
        `on_wait`, raises ConfigurationError, as it does where the folder is not writable. Raises
        DiskError if the disk is the reason.
        """
        with contextlib.ExitStack() as self._locks:
            self._locks.enter_context(self._locked(on_wait))
            self._wait_for_gpu_side()
            yield

    def outcome_of(self, rank: int) -> Path:
        """The outcome of one process of the GPU side, by its rank."""
        return self.root / f"{OUTCOME_OF}{rank}.json" if rank else self.worker_outcome

    def messages(self) -> list[Path]:
        """The files that the two sides of an attempt tell each other, as far as they are there."""
        others = self.root.glob(f"{OUTCOME_OF}*.json")
        return [*(self.root / name for name in OF_ONE_ATTEMPT), *others]

    def reserve_for_gpu_side(self, is_shared: bool = False) -> None:
        """Reserve the folder for this process, of the GPU side, for as long as it lives.

        `is_shared`: whether it is one of several processes, each of which reserves the folder. If
        the parent is killed, its GPU side needs a moment to end. Until then, the next attempt
        must not begin (see `lock`): it would take the records of the old one for its own.
        """
        if self.worker_lock.exists() and not self.worker_lock.is_file():
            remove(self.worker_lock)
        self.worker_lock.parent.mkdir(parents=True, exist_ok=True)
        self._worker_handle = self.worker_lock.open("w")  # closed, and so free, when it ends
        fcntl.flock(self._worker_handle, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX)

    def _wait_for_gpu_side(self) -> None:
        """Wait until the GPU side of a killed attempt has ended."""
        if not self.worker_lock.is_file():
            return
        deadline = time.monotonic() + GPU_SIDE_ENDS_S
        with self.worker_lock.open() as handle:
            while not _is_free(handle):
                if time.monotonic() > deadline:
                    raise ConfigurationError(
                        f"the GPU side of an earlier attempt still works on {self.root}",
                        "end its processes, or choose another --run-id",
                    )
                time.sleep(POLL_S)

    def set_aside(self) -> Path:
        """Rename the folder to <name>.previous, and begin an empty one in its place.

        An earlier .previous folder is deleted. The process must hold the lock; it then holds that
        of the empty folder too. Returns the new path of the old folder. Raises ConfigurationError
        if it cannot be renamed.
        """
        previous = self.previous
        try:
            remove(previous)
            self.root.rename(previous)
        except OSError as error:
            raise ConfigurationError(
                f"{self.root} holds a finished run of other settings, and cannot be renamed to "
                f"{previous.name}: {error.strerror}",
                "choose another --run-id, or give --replace to lose the finished run",
            ) from error
        self._locks.enter_context(self._locked(None))
        return previous

    @contextlib.contextmanager
    def _locked(self, on_wait: Callable[[], None] | None) -> Iterator[None]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = self.root / ".lock"
            if not lock.is_file():
                remove(lock)
            handle = lock.open("w")
        except OSError as error:
            if error.errno in disk.REASONS:
                raise
            raise ConfigurationError(
                f"{self.root} is not writable: {error.strerror}",
                "choose a writable folder with --runs-dir",
            ) from error
        with handle:
            try:
                _lock(handle, on_wait)
            except BlockingIOError as error:
                raise ConfigurationError(
                    f"another job is working on {self.root}",
                    "wait for it, or choose another --run-id",
                ) from error
            except OSError as error:
                if error.errno in (errno.EIO, errno.EINTR):
                    raise
                raise DiskError(
                    f"{self.root}: the file system offers no locks ({error.strerror}), so two jobs "
                    "could mix their records",
                    "choose a folder on another file system with --runs-dir; on NFS, mount it with "
                    "locks",
                ) from error
            yield


def _lock(handle: TextIO, on_wait: Callable[[], None] | None) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if on_wait is None:
            raise
        on_wait()
        fcntl.flock(handle, fcntl.LOCK_EX)


def _is_free(handle: TextIO) -> bool:
    """Whether no other process holds the lock of this file."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_of_adapter(name: str) -> bool:
    """Whether a file holds an adapter's weights or their configuration, by its path."""
    return Path(name).name.startswith("adapter_")


def is_of_trial(marker: str) -> bool:
    """Whether a stage or an epoch belongs to one of the trainings, by the name of its marker."""
    return marker in TRIAL_STAGES or marker.startswith((EPOCH_MARKER, STEP_MARKER))


def split_trial(name: str) -> tuple[str, str]:
    """The folder of a training, and the rest of the name of one of its files or markers.

    "trials/seed-43/train/log.jsonl" -> ("trials/seed-43/", "train/log.jsonl"). The folder is ""
    for other names.
    """
    found = re.match(rf"{TRIALS}[^/]+/", name)
    return (found[0], name[found.end() :]) if found else ("", name)


def is_training_state(name: str) -> bool:
    """Whether a file is the state of an unfinished training, by its name below the run's folder."""
    return split_trial(name)[1].startswith(TRAINING_STATES)


def candidate_marker(name: str) -> str:
    """The name under which a candidate of the search is marked complete."""
    return f"search/{name}"


def epoch_marker(epoch: int) -> str:
    """The name under which an epoch is marked complete."""
    return f"{EPOCH_MARKER}{epoch}"


def step_marker(epoch: int, step: int) -> str:
    """The name under which a checkpoint within an epoch is marked complete."""
    return f"{STEP_MARKER}{epoch}-{step}"


def step_state_name(epoch: int, step: int) -> str:
    """The name of the checkpoint after a step within an epoch (see `RunDir.step_state`)."""
    return f"{TRAINING_STATES}{epoch}-{step}.pt"


def epoch_and_step(marker: str) -> tuple[int, int] | None:
    """Epoch and step of a `step_marker`; None for another marker."""
    found = re.fullmatch(rf"{STEP_MARKER}([1-9]\d{{0,8}})-([1-9]\d{{0,8}})", marker, re.ASCII)
    return (int(found[1]), int(found[2])) if found else None


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def moment(text: str) -> datetime.datetime | None:
    """The time that `now` wrote, in UTC; None where the text is not a time."""
    try:
        read = datetime.datetime.fromisoformat(text)
        if read.tzinfo is None:
            read = read.replace(tzinfo=datetime.UTC)
        return read.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return None


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    content = text.encode("utf-8")
    with atomic_write(path, len(content)) as handle:
        handle.write(content)


def write_record(path: Path, record: Any) -> None:
    """Write one record as a JSON file, atomically."""
    write_text(path, records.dump(record))


def write_records(path: Path, items: Iterable[Any]) -> None:
    """Write records as a JSON Lines file, atomically."""
    write_text(path, records.dump_lines(items))


def append_record(path: Path, record: Any) -> None:
    """Append one record to a JSON Lines file, in one write so that lines never interleave."""
    append(path, records.dump_line(record).encode("utf-8"))


def append_to_log(path: Path, record: Any) -> None:
    """Append one record with its checksum to a log that no marker covers."""
    append(path, records.dump_log_line(record).encode("utf-8"))


def _is_there(path: Path) -> bool:
    """Whether the name is taken, also by a link that leads nowhere."""
    try:
        path.lstat()
    except OSError:
        return False
    return True


class _State(NamedTuple):
    """What changes when a file's content does."""

    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int


def _state(path: Path) -> _State | None:
    """The state of a file; None where there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return _State(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
