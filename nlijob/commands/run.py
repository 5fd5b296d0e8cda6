"""`run`: the whole job."""

from __future__ import annotations

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
from nlijob.commands.options import configuration, drop_overruled
from nlijob.commands.run_options import (
    checked_root,
    checked_run_id,
    chosen_hosts,
    default_run_id,
    run_options,
    with_device,
)
from nlijob.commands.variables import check_variables
from nlijob.config import Device, JobConfig
from nlijob.disk import disk_faults
from nlijob.errors import ExitCode, all_or_every_fault
from nlijob.printable import printable
from nlijob.streams import wait_briefly
from nlijob.surroundings import other_processes

if TYPE_CHECKING:
    from nlijob.console import Console
    from nlijob.rundir import RunDir


@click.command("run")
@run_options
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
    from nlijob.hardware import wake_driver

    if options["device"] != "cpu":
        wake_driver()  # now, as it takes up to seconds, and what follows is imported meanwhile
    from nlijob.attempt import Moment
    from nlijob.host_link import fault_of_others, joined
    from nlijob.host_serving import lead, serve, with_all_gpus
    from nlijob.hub import Hub
    from nlijob.notify import Notice
    from nlijob.pipeline import Job, check_gates
    from nlijob.records.job import RunRecord
    from nlijob.rundir import RunDir, now
    from nlijob.storage.mirror import Mirror
    from nlijob.storage.place import Place
    from nlijob.storage.resume import resume

    stopping.raise_on_signals()
    wait_briefly()  # the run's folder has the log, too
    console = _console(quiet, verbose)
    with Notice(notify_url, recipe, console.warn) as notice:
        check_variables(os.environ)
        config, hosts = all_or_every_fault(
            lambda: configuration(recipe, assignments, options), lambda: chosen_hosts(options)
        )
        run_id = checked_run_id(run_id or default_run_id(recipe, config))
        run_dir = notice.run = RunDir(checked_root(runs_dir / run_id))
        source = Place("--resume-from", resume_from, run_id) if resume_from else None
        target = Place("--upload", upload, run_id) if upload else None
        wanted, config = config.model.device, with_device(config, recipe)
        record = RunRecord(
            run_id=run_id,
            recipe=recipe,
            config=with_all_gpus(config) if hosts else config,
            command=_without_secrets(sys.argv[1:]),
            created_at=now(),
            nlijob_version=__version__,
        )
        hub = Hub(offline, console.line)
        if hosts and not hosts.is_lead:
            notice.leave_to_others()
            console.line(f"nlijob {__version__}: {hosts}, on {_where(wanted, config)}")
            serve(hosts, record, hub, console)
            return ExitCode.DONE
        console.line(f"nlijob {__version__}: {run_dir.root} on {_where(wanted, config)}")
        heading = f"{now()} nlijob {__version__} {' '.join(record.command)}"
        link = lead(hosts, record.config, console.line) if hosts else None
        with (
            joined(link) if link else nullcontext(),
            run_dir.lock(None if link else _wait_for_rank(console, run_dir)),
            console.kept_in(run_dir.console_log, heading),
            fault_of_others(link),
            disk_faults(run_dir.root),
        ):
            run_dir.clear_misplaced()
            if source:
                resume(run_dir, source, console.line)
            tell = (console.line, console.warn)
            with Mirror(run_dir, target, *tell) if target else nullcontext() as mirror:
                notice.mirror = mirror
                started = Moment(started_at_s, started_s)
                job = Job(run_dir, record, hub, console, replace, started, link)
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


def _where(wanted: Device, config: JobConfig) -> str:
    """The device that the job runs on, for the console."""
    if config.model.device == "cuda":
        return "GPU"
    return "CPU" if wanted == "cpu" else "CPU (no GPU found)"


def _console(quiet: bool, verbose: bool) -> Console:
    from nlijob.console import Console, Verbosity

    given: dict[str, Any] = {"quiet": quiet or None, "verbose": verbose or None}
    drop_overruled(given, "quiet", "verbose")
    if given["quiet"]:
        return Console(verbosity=Verbosity.QUIET)
    return Console(verbosity=Verbosity.VERBOSE if given["verbose"] else Verbosity.NORMAL)


def _without_secrets(command: Sequence[str]) -> tuple[str, ...]:
    """The command as the report shows it: URLs are cut after the scheme; they may hold secrets."""
    return tuple(re.sub(r"(\w+://).*", r"\1...", printable(argument)) for argument in command)
