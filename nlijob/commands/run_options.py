"""The options of `run` that `plan` and `doctor` take as well, and what follows from them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from nlijob.commands.options import FOLDER, F, option, recipe_options
from nlijob.config import Device, JobConfig, ReportConfig, TrainConfig, check, load_config
from nlijob.errors import ConfigurationError, HardwareError
from nlijob.hosts import Hosts, hosts_of
from nlijob.printable import printable
from nlijob.recipe import recipe_name
from nlijob.rundir import PREVIOUS
from nlijob.stages import UNREAD

LONGEST_NAME = 255
"""Bytes in a file's name, on most file systems."""

RUN_OPTIONS = (
    option(
        "runs-dir",
        type=FOLDER,
        default=Path("runs"),
        show_default=True,
        help="Folder in which runs are kept.",
    ),
    option(
        "run-id",
        help="Name of the run; the same name resumes it. Default: the recipe's name, with a short "
        "hash where options change what is computed.",
    ),
    option(
        "upload",
        metavar="URL",
        help="Keep a copy of the run at URL/RUN_ID while it runs: s3://, gs:// or file://.",
    ),
    option(
        "resume-from",
        metavar="URL",
        help="First fetch the run from URL/RUN_ID, if the copy there is further along.",
    ),
    option(
        "notify-url",
        metavar="URL",
        help="Post a short JSON document there when the job ends, however it ends.",
    ),
    option(
        "replace",
        is_flag=True,
        help="Lose a finished run of other settings under the same run id. Default: keep it as "
        "RUN_ID.previous.",
    ),
    option(
        "hosts",
        metavar="N|env",
        help="Work on N hosts together, each of which runs this command; env: as the variables of "
        "torchrun or a scheduler say.",
    ),
    option("host-rank", metavar="I", help="Number of this host, from 0; host 0 has the run."),
    option(
        "rendezvous",
        metavar="HOST:PORT",
        help="Where the hosts meet: host 0, and a port of it that is free.",
    ),
    option(
        "rendezvous-timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Longest time that the hosts wait for each other at the start. Default: 900.",
    ),
    option("quiet", is_flag=True, help="Print only the result, warnings and errors."),
    option(
        "verbose",
        is_flag=True,
        help="Also print the log of the GPU side; `plan`: the memory of each mode as a sum.",
    ),
)


def run_options(command: F) -> F:
    """Add all options of `run`."""
    for add in reversed(RUN_OPTIONS):
        command = add(command)
    return recipe_options(command)


def chosen_hosts(options: Mapping[str, Any]) -> Hosts | None:
    """The hosts that work together; None for this one alone. Raises ConfigurationError."""
    return hosts_of(
        options["hosts"],
        options["host_rank"],
        options["rendezvous"],
        options["rendezvous_timeout"],
        os.environ,
    )


def default_run_id(recipe: str, config: JobConfig) -> str:
    """The recipe's name, followed by a hash of the configuration where options changed it.

    The number of trainings does not count: a run that is asked for more goes on. Nor does the
    machine: a run goes on with other GPUs.
    """
    name = recipe_name(recipe)
    computed = _what_is_computed(config)
    if computed == _what_is_computed(load_config(recipe)):
        return name
    text = json.dumps(computed, sort_keys=True)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def with_one_training(config: JobConfig) -> JobConfig:
    """The configuration of the run's first training alone."""
    default = TrainConfig()
    train = dataclasses.replace(config.train, seeds=default.seeds, keep=default.keep)
    return dataclasses.replace(config, train=train)


def _what_is_computed(config: JobConfig) -> dict[str, Any]:
    """The configuration's tables but for what may differ within a run."""
    config = with_one_training(config)
    report = dataclasses.replace(config.report, track=ReportConfig().track)
    tables = dataclasses.asdict(dataclasses.replace(config, report=report))
    return {name: table for name, table in tables.items() if name not in UNREAD}


def checked_run_id(run_id: str) -> str:
    """The run id, if a folder can have this name. Raises ConfigurationError."""
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


def checked_root(root: Path) -> Path:
    """The run's folder. Raises ConfigurationError if libraries cannot write to it."""
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


def with_device(config: JobConfig, recipe: str) -> JobConfig:
    """The configuration with "auto" resolved, so that the records name the device.

    Raises HardwareError if there is no GPU and the job needs one, and ConfigurationError.
    """
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
            "in a container: `docker run --gpus all`; `--recipe demo` runs on a CPU; "
            "`--device cpu` runs this recipe there, slowly",
        )
    return on_device(config, "cuda" if gpus else "cpu")


def on_device(config: JobConfig, device: Device) -> JobConfig:
    """The configuration for a device. Raises ConfigurationError where it does not suit it."""
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, device=device))
    if faults := check(config):
        raise ConfigurationError.from_faults(faults, f"on this machine's {device}")
    return config
