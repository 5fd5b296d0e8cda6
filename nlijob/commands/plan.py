"""`plan`: what the job would do, without doing it."""

from __future__ import annotations

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
from nlijob.errors import ExitCode, HardwareError, JobError, all_or_every_fault, error_for
from nlijob.printable import printable
from nlijob.streams import check_output


@click.command("plan")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@run_options
def command(
    recipe: str,
    offline: bool,
    assignments: tuple[str, ...],
    runs_dir: Path,
    run_id: str | None,
    upload: str | None,
    resume_from: str | None,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    **others: Any,
) -> int:
    """Say what `run` would do with the same options, and do nothing.

    Prints the model, head, prompt, answers and adapted modules as they are resolved, the rows,
    tokens and optimizer steps, and estimates of memory, disk and time. Downloads the model's
    configuration and tokenizer at most. Exit code: that of `run` for a fault in the configuration,
    the data or the model; what this machine lacks is named, and changes nothing.
    """
    from nlijob import records, stopping
    from nlijob.hub import Hub
    from nlijob.planning.plan import Wanted, exit_error, make_plan
    from nlijob.planning.words import plan_lines
    from nlijob.rundir import RunDir
    from nlijob.storage.place import Place

    stopping.raise_on_signals()
    config, _ = all_or_every_fault(
        lambda: configuration(recipe, assignments, others), lambda: chosen_hosts(others)
    )
    name = checked_run_id(run_id or default_run_id(recipe, config))
    run = RunDir(checked_root(runs_dir / name))
    for option, url in (("--resume-from", resume_from), ("--upload", upload)):
        if url:
            Place(option, url, name)  # refuses what it cannot use
    obstacles: list[JobError] = []
    try:
        config = with_device(config, recipe)
    except HardwareError as error:
        obstacles.append(error)
        config = on_device(config, "cuda")

    def tell(text: str) -> None:
        if not quiet:
            click.echo(printable(text.strip()), err=True)

    plan = make_plan(Wanted(recipe, config, run, Hub(offline, tell), tell), obstacles)
    text = (
        records.dump(plan)
        if as_json
        else "\n".join(map(printable, plan_lines(plan, verbose))) + "\n"
    )
    click.echo(text, nl=False)
    check_output()
    if fault := exit_error(plan):
        raise error_for(fault.exit_code, fault.message, fault.hint)
    return ExitCode.DONE
