"""Checks whether this machine can run a job, in less than half a minute, whatever hangs.

Every check runs in a thread of its own or in the child process, and is given up at a deadline.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from nlijob import hardware, records
from nlijob.analysis.wording import gib
from nlijob.config import JobConfig
from nlijob.disk import disk_fault, existing_folder, free_text, size_text
from nlijob.ending import end_of
from nlijob.errors import DiskError, ExitCode, NotAvailableError
from nlijob.hardware.driver import start
from nlijob.hub import Hub
from nlijob.hub_requests import Limits
from nlijob.planning.child import LOOK, TRIAL, TRIAL_MODULE, child
from nlijob.planning.memory import memory_need, memory_obstacles
from nlijob.planning.needs import disk_needs, disk_obstacles
from nlijob.planning.plan import write_stand_in, write_task
from nlijob.planning.processes import chosen_processes
from nlijob.planning.sources import FoundData, FoundModel, find_data, find_model
from nlijob.planning.words import cards_lines, processes_text
from nlijob.records.health import Check, Health
from nlijob.records.job import SPLITS, Split
from nlijob.records.planning import ModelLook, Obstacle, PlannedFiles
from nlijob.rundir import RunDir

T = TypeVar("T")

WHOLE_S = 27.0
"""All checks are done or given up after this time; ending the child takes two seconds more."""
PLACES_S = 10.0
"""Longest time for making a small file in a folder, which may be on a network."""
SOURCES_S = 15.0
"""Longest time for looking at model and data set on the hub."""
POLL_S = 0.05
HUB_LIMITS = Limits(connect_s=4.0, answer_s=4.0, attempts=1, patience_s=SOURCES_S)
STEPS = ("libraries", "device", "4-bit test", "prompt")
"""The checks of the child process (`nlijob.gpu.trial`), in its order."""


@dataclass(frozen=True)
class Patient:
    """The machine, and the job that it is to run."""

    recipe: str
    config: JobConfig
    """With the device that the job would use."""
    gpu_check: Check
    """Whether there is the GPU that the job needs."""
    run: Path
    """The run's folder, which need not exist."""
    offline: bool
    since_s: float
    """When the command began, on the monotonic clock."""


class _Found(NamedTuple):
    """What was found out about model, data set and GPU side."""

    checks: Sequence[Check] = ()
    model: FoundModel | None = None
    data: FoundData | None = None
    look: ModelLook | None = None


def examine(patient: Patient) -> Health:
    """All checks. Takes half a minute at most."""
    deadline_s = patient.since_s + WHOLE_S
    asked = [(name, start(place)) for name, place in _places(patient)]
    until_s = min(deadline_s, time.monotonic() + PLACES_S)
    of_places = [_answer(place, name, PLACES_S, until_s, ExitCode.DISK) for name, place in asked]
    can_write = {check.name: check.status == "OK" for check in of_places}
    found = _Found()
    if can_write[TEMPORARY]:
        found = _examine_job(patient, deadline_s)
    checks = [patient.gpu_check, *of_places, *found.checks]
    checks += _memory(patient, found.look)
    if all(can_write.values()):
        checks += _disk_space(patient, found)
    failed = [check.exit_code for check in checks if check.status == "FAIL"]
    return Health(tuple(checks), failed[0] if failed else ExitCode.DONE)


# ---------------------------------------------------------------- places


TEMPORARY = "temporary files"


def _places(patient: Patient) -> list[tuple[str, Callable[[], Check]]]:
    """Name and check of each folder that the job writes to."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).expanduser()
    run_advice = "choose another --runs-dir"
    cache_advice = "set HF_HOME to a folder that can be written to"
    advice = "set TMPDIR to a folder that can be written to"
    return [
        ("run folder", lambda: _place("run folder", patient.run, run_advice)),
        ("cache", lambda: _place("cache", cache, cache_advice)),
        (TEMPORARY, lambda: _place(TEMPORARY, Path(tempfile.gettempdir()), advice)),
    ]


def _place(name: str, folder: Path, advice: str) -> Check:
    """Make a small file where the folder is or will be, and delete it again."""
    place = existing_folder(folder)
    try:
        _check_way(folder.absolute())
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        fault = disk_fault(error, place)
        text = fault.message if fault else f"{place}: {error.strerror or error}"
        return Check(name, "FAIL", text, advice, ExitCode.DISK)
    return Check(name, "OK", f"{folder}: writable, {free_text(place)}")


def _check_way(folder: Path) -> None:
    """Raise OSError if there is a file, or a link to nothing, where a folder will be needed."""
    for path in (folder, *folder.parents):
        if os.path.lexists(path) and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


# ---------------------------------------------------------------- model, data set, GPU side


def _examine_job(patient: Patient, deadline_s: float) -> _Found:
    """What the child process and the hub tell."""
    try:
        with tempfile.TemporaryDirectory(prefix="nlijob-doctor-") as folder:
            return _examine_in(patient, RunDir(Path(folder)), deadline_s)
    except (OSError, DiskError) as error:  # a limit on the size of files, say
        end = end_of(error)
        if end.exit_code == ExitCode.INTERNAL:
            raise
        text = f"not tried: {end.message}"
        return _Found([Check(STEPS[0], "FAIL", text, end.hint, end.exit_code)])


def _examine_in(patient: Patient, scratch: RunDir, deadline_s: float) -> _Found:
    write_stand_in(scratch)
    write_task(scratch, patient.recipe, patient.config, None)
    has_device = patient.gpu_check.status == "OK"
    arguments = [str(scratch.root.absolute()), *([] if has_device else ["without-device"])]
    with child(TRIAL_MODULE, *arguments, output=scratch.worker_log) as process:
        found = _sources(patient, deadline_s)
        if found.model is not None:
            write_task(scratch, patient.recipe, patient.config, found.model.folder)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended; what it did is on disk
            process.stdin.write(b"\n")
        while process.poll() is None and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
        has_ended = process.poll() is not None
    steps = _steps(scratch, has_device, found.model, has_ended)
    return found._replace(checks=[*found.checks, *steps], look=model_look(scratch))


def model_look(scratch: RunDir) -> ModelLook | None:
    """What the child process found out about the model; None if it did not get there."""
    try:
        return records.read(ModelLook, scratch.root / LOOK)
    except (OSError, ValueError):
        return None


def _sources(patient: Patient, deadline_s: float) -> _Found:
    hub = Hub(patient.offline, lambda _: None, HUB_LIMITS)
    config = patient.config
    model: list[FoundModel] = []
    data: list[FoundData] = []

    def look_at_model() -> Check:
        found = find_model(config.model, hub)
        model.append(found)
        if found.fault:
            raise found.fault
        if found.files.download_bytes:
            hub.ask("model", config.model.name, config.model.revision)
        return Check("model", "OK", _files_text(found.files))

    def look_at_data() -> Check:
        found = find_data(config.data, hub)
        data.append(found)
        if found.files.download_bytes and hub.is_offline:
            raise NotAvailableError(
                f"data set {config.data.dataset} is not whole in the cache",
                "run `prefetch` with the same options while online",
            )
        if found.files.download_bytes:
            hub.ask("dataset", config.data.dataset, config.data.revision)
        return Check("data set", "OK", _files_text(found.files))

    asked = [("model", start(look_at_model)), ("data set", start(look_at_data))]
    until_s = min(deadline_s, time.monotonic() + SOURCES_S)
    checks = [
        _answer(answer, name, SOURCES_S, until_s, ExitCode.NOT_AVAILABLE) for name, answer in asked
    ]
    return _Found(checks, next(iter(model), None), next(iter(data), None))


def _files_text(files: PlannedFiles) -> str:
    if files.download_bytes == 0:
        return f"{files.name}: it is here"
    size = "" if files.download_bytes is None else f", {size_text(files.download_bytes)} to fetch"
    return f"{files.name}: the hub answers{size}"


def _steps(
    scratch: RunDir, has_device: bool, model: FoundModel | None, has_ended: bool
) -> list[Check]:
    """What the child process found; the step at which it stopped failed."""
    done = records.read_log(Check, scratch.root / TRIAL).records
    failed = {check.name for check in done if check.status != "OK"}
    expected = [STEPS[0], *(STEPS[1:3] if has_device else ())]
    expected += [STEPS[3]] if model is not None else []
    names = {check.name for check in done}
    missing = [name for name in expected if name not in names]
    if STEPS[0] in failed or not missing:
        return done
    if "device" in failed and missing[0] == STEPS[2]:
        missing = missing[1:]
    return [*done, *([_unanswered(missing[0], has_ended, scratch)] if missing else [])]


def _unanswered(step: str, has_ended: bool, scratch: RunDir) -> Check:
    if has_ended:
        log = scratch.worker_log.read_text(encoding="utf-8", errors="replace").strip()
        last = log.splitlines()[-1] if log else "it left no message"
        return Check(
            step,
            "FAIL",
            f"the process that tried it died: {last}",
            "a library or driver crashed: reinstall torch for this driver, or try another machine",
            ExitCode.HARDWARE,
        )
    if step in STEPS[1:3]:
        return Check(
            step,
            "FAIL",
            f"no answer within {WHOLE_S:.0f} s",
            "the driver hangs: restart the machine or its driver",
            ExitCode.HARDWARE,
        )
    return Check(
        step,
        "WARN",
        f"not done within {WHOLE_S:.0f} s",
        "the machine is busy, or its disk is slow: try again",
    )


# ---------------------------------------------------------------- does it fit


def _memory(patient: Patient, look: ModelLook | None) -> Iterator[Check]:
    if look is None:
        return
    gpus = chosen_processes(patient.config, RunDir(patient.run)).number
    memory = memory_need(patient.config, look, gpus)
    if memory.cards:
        yield Check("GPU sizes", "OK", "; ".join(cards_lines(memory)))
    if look.free_memory_bytes is None:
        return
    yield _from_obstacle(
        "memory",
        next(iter(memory_obstacles(memory)), None),
        f"about {gib(memory.least_bytes)} needed in the leanest execution mode, "
        f"{gib(look.free_memory_bytes)} free",
    )


def _disk_space(patient: Patient, found: _Found) -> Iterator[Check]:
    if found.look is None or found.model is None or found.data is None:
        return
    downloads = (found.model.files.download_bytes, found.data.files.download_bytes)
    rows: dict[Split, int | None] = dict.fromkeys(SPLITS)
    disks = disk_needs(patient.config, found.look, rows, patient.run, downloads)
    needed = sum(disk.needed_bytes or 0 for disk in disks)
    yield _from_obstacle(
        "disk space",
        next(iter(disk_obstacles(disks)), None),
        f"about {size_text(needed)} needed for the run and downloads",
    )


def _from_obstacle(name: str, obstacle: Obstacle | None, text: str) -> Check:
    if obstacle is None:
        return Check(name, "OK", text)
    return Check(name, "FAIL", obstacle.message, obstacle.hint, obstacle.exit_code)


def _answer(
    answer: Future[Check], name: str, limit_s: float, deadline_s: float, code: ExitCode
) -> Check:
    """A check's result; it failed if it raised, or is not done in time."""
    left_s = min(limit_s, max(0.0, deadline_s - time.monotonic()))
    try:
        return answer.result(left_s)
    except TimeoutError:
        advice = "a disk, network or server hangs"
        return Check(name, "FAIL", f"no answer within {limit_s:.0f} s", advice, code)
    except Exception as error:
        end = end_of(error)
        return Check(name, "FAIL", end.message, end.hint, int(end.exit_code))


def gpu_check(config: JobConfig, run: RunDir) -> Check:
    """The check of GPUs that are there, or not needed, for a job that begins or goes on."""
    if config.model.device == "cpu":
        return Check("GPU", "OK", "not needed: the job runs on the CPU")
    version = hardware.driver_version()
    driver = f"NVIDIA driver {version or 'of unknown version'}"
    planned = chosen_processes(config, run)
    return Check("GPU", "OK", f"{driver}; {processes_text(planned)}")
