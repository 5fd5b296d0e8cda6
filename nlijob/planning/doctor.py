"""Checks whether this machine can run a job, in less than half a minute, whatever hangs.

Every check runs in a thread of its own or in the child process, and is given up at a deadline.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Callable, Iterator
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
from nlijob.planning.needs import disk_needs, disk_obstacles, memory_need, memory_obstacles
from nlijob.planning.plan import write_stand_in, write_task
from nlijob.planning.sources import FoundData, FoundModel, find_data, find_model
from nlijob.records.health import Check, Health
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


class _Sources(NamedTuple):
    checks: list[Check]
    model: FoundModel | None
    data: FoundData | None


def examine(patient: Patient) -> Health:
    """All checks. Takes half a minute at most."""
    deadline_s = time.monotonic() + WHOLE_S
    places = [start(place) for place in _places(patient)]
    try:
        with tempfile.TemporaryDirectory(prefix="nlijob-doctor-") as folder:
            sources, steps, look = _examine_job(patient, RunDir(Path(folder)), deadline_s)
    except (OSError, DiskError) as error:  # the folder for temporary files cannot be written to
        end = end_of(error)
        if end.exit_code == ExitCode.INTERNAL:
            raise
        steps = [Check(STEPS[0], "FAIL", f"not tried: {end.message}", end.hint, end.exit_code)]
        sources, look = _Sources([], None, None), None
    of_places = [
        _answer(place, name, PLACES_S, deadline_s, ExitCode.DISK)
        for place, name in zip(places, PLACES, strict=True)
    ]
    checks = [patient.gpu_check, *of_places, *sources.checks, *steps]
    checks += _fits(patient, look, sources)
    failed = [check.exit_code for check in checks if check.status == "FAIL"]
    return Health(tuple(checks), failed[0] if failed else ExitCode.DONE)


# ---------------------------------------------------------------- places


PLACES = ("run folder", "cache", "temporary files")


def _places(patient: Patient) -> list[Callable[[], Check]]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).expanduser()
    return [
        lambda: _place(PLACES[0], patient.run, "choose another --runs-dir"),
        lambda: _place(PLACES[1], cache, "set HF_HOME to a folder that can be written to"),
        lambda: _place(
            PLACES[2], Path(tempfile.gettempdir()), "set TMPDIR to a folder that can be written to"
        ),
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


def _examine_job(
    patient: Patient, scratch: RunDir, deadline_s: float
) -> tuple[_Sources, list[Check], ModelLook | None]:
    write_stand_in(scratch)
    write_task(scratch, patient.recipe, patient.config, None)
    has_device = patient.gpu_check.status == "OK"
    arguments = [str(scratch.root.absolute()), *([] if has_device else ["without-device"])]
    with child(TRIAL_MODULE, *arguments, output=scratch.worker_log) as process:
        sources = _sources(patient, deadline_s)
        if sources.model is not None:
            write_task(scratch, patient.recipe, patient.config, sources.model.folder)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended; what it did is on disk
            process.stdin.write(b"\n")
        while process.poll() is None and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
        has_ended = process.poll() is not None
    steps = _steps(scratch, has_device, sources.model, has_ended)
    return sources, steps, model_look(scratch)


def model_look(scratch: RunDir) -> ModelLook | None:
    """What the child process found out about the model; None if it did not get there."""
    try:
        return records.read(ModelLook, scratch.root / LOOK)
    except (OSError, ValueError):
        return None


def _sources(patient: Patient, deadline_s: float) -> _Sources:
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
    checks = [
        _answer(answer, name, SOURCES_S, deadline_s, ExitCode.NOT_AVAILABLE)
        for name, answer in asked
    ]
    return _Sources(checks, next(iter(model), None), next(iter(data), None))


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


def _fits(patient: Patient, look: ModelLook | None, sources: _Sources) -> Iterator[Check]:
    if look is None or sources.model is None:
        return
    memory = memory_need(patient.config, look)
    if memory.free_bytes is not None:
        yield _from_obstacle(
            "memory",
            next(iter(memory_obstacles(memory)), None),
            f"about {gib(memory.least_bytes)} needed in the leanest execution mode, "
            f"{gib(memory.free_bytes)} free",
        )
    if sources.data is None:
        return
    downloads = (sources.model.files.download_bytes, sources.data.files.download_bytes)
    rows = dict.fromkeys(("train", "validation", "test"))
    disks = disk_needs(patient.config, look, rows, patient.run, downloads)  # type: ignore[arg-type]
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


def gpu_check(device: str) -> Check:
    """The check of a GPU that is there, or not needed."""
    if device == "cpu":
        return Check("GPU", "OK", "not needed: the job runs on the CPU")
    version = hardware.driver_version()
    return Check("GPU", "OK", f"NVIDIA driver {version or 'of unknown version'}")
