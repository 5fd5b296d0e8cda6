"""`run`: the whole job."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nlijob import __version__, stopping
from nlijob.commands.options import FOLDER, configuration, drop_overruled, option, recipe_options
from nlijob.config import Device, JobConfig, check, load_config
from nlijob.disk import disk_faults
from nlijob.errors import ConfigurationError, ExitCode, HardwareError
from nlijob.printable import printable
from nlijob.recipe import recipe_name
from nlijob.rundir import PREVIOUS
from nlijob.surroundings import other_processes

if TYPE_CHECKING:
    from nlijob.console import Console
    from nlijob.rundir import RunDir

LONGEST_NAME = 255
"""Bytes in a file's name, on most file systems."""


@click.command("run")
@recipe_options
@option(
    "runs-dir",
    type=FOLDER,
    default=Path("runs"),
    show_default=True,
    help="Folder in which runs are kept.",
)
@option(
    "run-id",
    help="Name of the run; the same name resumes it. Default: the recipe's name, with a short "
    "hash where options change what is computed.",
)
@option(
    "upload",
    metavar="URL",
    help="Keep a copy of the run at URL/RUN_ID while it runs: s3://, gs:// or file://.",
)
@option(
    "resume-from",
    metavar="URL",
    help="First fetch the run from URL/RUN_ID, if the copy there is further along.",
)
@option(
    "notify-url",
    metavar="URL",
    help="Post a short JSON document there when the job ends, however it ends.",
)
@option(
    "replace",
    is_flag=True,
    help="Lose a finished run of other settings under the same run id. Default: keep it as "
    "RUN_ID.previous.",
)
@option("quiet", is_flag=True, help="Print only the result, warnings and errors.")
@option("verbose", is_flag=True, help="Also print the log of the GPU side.")
def command(
    recipe: str,
    offline: bool,
    assignments: tuple[str, ...],
    runs_dir: Path,
    run_id: str | None,
    upload: str | None,
    resume_from: str | None,
    notify_url: str | None,
    replace: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> int:
    """Run the whole job and write report.html."""
    started_at_s, started_s = time.time(), time.monotonic()
    from nlijob.attempt import Moment
    from nlijob.hub import Hub
    from nlijob.notify import Notice
    from nlijob.pipeline import Job, check_gates
    from nlijob.records.job import RunRecord
    from nlijob.rundir import RunDir, now
    from nlijob.storage.mirror import Mirror
    from nlijob.storage.place import Place
    from nlijob.storage.resume import resume

    stopping.raise_on_signals()
    console = _console(quiet, verbose)
    with Notice(notify_url, recipe, console.warn) as notice:
        config = configuration(recipe, assignments, options)
        run_id = _checked_run_id(run_id or _default_run_id(recipe, config))
        run_dir = notice.run = RunDir(_checked_root(runs_dir / run_id))
        source = Place("--resume-from", resume_from, run_id) if resume_from else None
        target = Place("--upload", upload, run_id) if upload else None
        config = _with_device(config, recipe, console, run_dir)
        record = RunRecord(
            run_id=run_id,
            recipe=recipe,
            config=config,
            command=_without_secrets(sys.argv[1:]),
            created_at=now(),
            nlijob_version=__version__,
        )
        heading = f"{now()} nlijob {__version__} {' '.join(record.command)}"
        with (
            run_dir.lock(_wait_for_rank(console, run_dir)),
            console.kept_in(run_dir.console_log, heading),
            disk_faults(run_dir.root),
        ):
            run_dir.clear_misplaced()
            if source:
                resume(run_dir, source, console.line)
            tell = (console.line, console.warn)
            with Mirror(run_dir, target, *tell) if target else nullcontext() as mirror:
                notice.mirror = mirror
                hub = Hub(offline, console.line)
                started = Moment(started_at_s, started_s)
                job = Job(run_dir, record, hub, console, replace, started)
                notice.results = job.work()
            check_gates(notice.results)
    return ExitCode.DONE


def _wait_for_rank(console: Console, run_dir: RunDir) -> Callable[[], None] | None:
    """What to do where another process works on the run: None refuses to be the second.

    Where a launcher has started this process together with others (torchrun, mpirun, srun), they
    all do the same job. One does it; the others wait for its end and then find it complete. If they
    failed instead, the launcher would end the one that works.
    """
    if not other_processes(os.environ):
        return None
    return lambda: console.line(
        f"Another process of the same launcher is working on {run_dir.root}; waiting for its end"
    )


def _console(quiet: bool, verbose: bool) -> Console:
    from nlijob.console import Console, Verbosity

    given: dict[str, Any] = {"quiet": quiet or None, "verbose": verbose or None}
    drop_overruled(given, "quiet", "verbose")
    if given["quiet"]:
        return Console(verbosity=Verbosity.QUIET)
    return Console(verbosity=Verbosity.VERBOSE if given["verbose"] else Verbosity.NORMAL)


def _default_run_id(recipe: str, config: JobConfig) -> str:
    """The recipe's name, followed by a hash of the configuration where options changed it."""
    name = recipe_name(recipe)
    if config == load_config(recipe):
        return name
    text = json.dumps(dataclasses.asdict(config), sort_keys=True)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _checked_run_id(run_id: str) -> str:
    if run_id in ("", ".", "..") or "/" in run_id:
        raise ConfigurationError(f"--run-id {run_id!r}: give a plain folder name")
    if run_id.endswith(PREVIOUS):
        raise ConfigurationError(
            f"--run-id {run_id!r}: names that end in {PREVIOUS} are for runs that were replaced"
        )
    if printable(run_id) != run_id or any(c in run_id for c in "\t\n"):
        raise ConfigurationError(
            f"--run-id {run_id!r}: control characters cannot be part of a name"
        )
    if len(os.fsencode(run_id)) > LONGEST_NAME:
        raise ConfigurationError(
            f"--run-id {run_id[:20]}...: longer than {LONGEST_NAME} bytes, which file systems allow"
        )
    return run_id


def _checked_root(root: Path) -> Path:
    """The run's folder. Libraries cannot write to a path whose bytes are not UTF-8."""
    try:
        str(root.absolute()).encode("utf-8")
    except FileNotFoundError:
        raise ConfigurationError(
            "the current folder was deleted",
            "change to another one, or give an absolute --runs-dir",
        ) from None
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"--runs-dir: the path {root.absolute()} is not UTF-8", "choose or rename a folder"
        ) from None
    return root


def _without_secrets(command: Sequence[str]) -> tuple[str, ...]:
    """The command as the report shows it: URLs are cut after the scheme; they may hold secrets."""
    return tuple(re.sub(r"(\w+://).*", r"\1...", printable(argument)) for argument in command)


def _with_device(config: JobConfig, recipe: str, console: Console, run_dir: Any) -> JobConfig:
    """The configuration with "auto" resolved, so that the records name the device."""
    from nlijob.hardware import driver_fault, gpu_count

    wanted = config.model.device
    gpus = gpu_count() if wanted != "cpu" else 0
    if gpus == 0 and (wanted == "cuda" or (wanted == "auto" and config.model.requires_gpu)):
        missing = "no GPU with an NVIDIA driver was found"
        if fault := driver_fault():
            missing += f" ({fault})"
        raise HardwareError(
            f"recipe {recipe_name(recipe)} is made for a GPU, and {missing}"
            if config.model.requires_gpu
            else f"--device cuda: {missing}",
            "in a container give --gpus all; `--recipe demo` runs on a CPU; "
            "`--device cpu` runs this recipe there, slowly",
        )
    device: Device = "cuda" if gpus else "cpu"
    where = "GPU" if gpus else "CPU" + ("" if wanted == "cpu" else " (no GPU found)")
    console.line(f"nlijob {__version__}: {run_dir.root} on {where}")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, device=device))
    if faults := check(config):
        raise ConfigurationError.from_faults(faults, f"on this machine's {device}")
    return config
