"""`doctor`: whether this machine can run the job."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from nlijob.commands.options import configuration
from nlijob.commands.run_options import (
    checked_root,
    checked_run_id,
    chosen_hosts,
    default_run_id,
    on_device,
    run_options,
    with_device,
)
from nlijob.errors import HardwareError, all_or_every_fault
from nlijob.printable import printable
from nlijob.streams import check_output


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@run_options
def command(
    recipe: str,
    offline: bool,
    assignments: tuple[str, ...],
    runs_dir: Path,
    run_id: str | None,
    as_json: bool,
    **others: Any,
) -> int:
    """Check whether this machine can do `run` with the same options.

    Takes half a minute at most. Looks at the driver, the GPU, 4-bit weights, the folders that are
    written to, model and data set, memory and disk space. Prints a line for each: OK, WARN, or FAIL
    and what to do. Exit code: 0, or the one with which the job would end.
    """
    since_s = time.monotonic()
    from nlijob import records, stopping
    from nlijob.planning.doctor import Patient, examine, gpu_check
    from nlijob.planning.words import check_lines
    from nlijob.records.health import Check
    from nlijob.rundir import RunDir

    stopping.raise_on_signals()
    config, _ = all_or_every_fault(
        lambda: configuration(recipe, assignments, others), lambda: chosen_hosts(others)
    )
    run = checked_root(runs_dir / checked_run_id(run_id or default_run_id(recipe, config)))
    try:
        config = with_device(config, recipe)
        check = gpu_check(config, RunDir(run))
    except HardwareError as error:
        check = Check("GPU", "FAIL", error.message, error.hint, error.exit_code)
        config = on_device(config, "cuda")
    health = examine(Patient(recipe, config, check, run, offline, since_s))
    text = (
        records.dump(health) if as_json else "\n".join(map(printable, check_lines(health))) + "\n"
    )
    click.echo(text, nl=False)
    check_output()
    return health.exit_code
