"""`prefetch`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from nlijob.commands.options import configuration, recipe_options
from nlijob.errors import ExitCode
from nlijob.printable import printable


@click.command("prefetch")
@recipe_options
def command(recipe: str, offline: bool, assignments: tuple[str, ...], **options: Any) -> int:
    """Fetch model and data into the cache, for `run --offline`."""
    import tempfile

    from nlijob import stopping
    from nlijob.data.elsewhere import read_set
    from nlijob.data.splits import open_splits, with_label_names
    from nlijob.data.subset import build_subset
    from nlijob.data.tasks import fetch_tasks, task_list, tasks_stamp
    from nlijob.hub import Hub
    from nlijob.rundir import RunDir, write_record

    stopping.raise_on_signals()
    config = configuration(recipe, assignments, options)
    hub = Hub(offline, partial(click.echo, err=True))
    click.echo(printable(f"model {config.model.name}: {hub.model_folder(config.model)}"))
    opened = open_splits(config.data, hub)
    data = with_label_names(config.data, opened)
    with tempfile.TemporaryDirectory() as folder:
        manifest = build_subset(data, RunDir(Path(folder)), hub, opened)
    for split in manifest.splits.values():
        click.echo(
            printable(
                f"data set {manifest.dataset}, {split.split}: {split.source_rows:,} rows, "
                f"{split.rows:,} in the subset{split.origin and f'; {split.origin}'}"
            )
        )
    for one in config.transfer:
        rows = read_set(one, data, hub).manifest.rows
        taken = (
            f"{rows.source_rows:,} rows, {rows.rows:,} taken{rows.origin and f'; {rows.origin}'}"
        )
        click.echo(printable(f"further set {one.name}: {taken}"))
    if config.forgetting.tasks:
        tasks_stamp(config.forgetting)
        with tempfile.TemporaryDirectory() as folder:
            write_record(listed := Path(folder) / "tasks.json", task_list(config.forgetting))
            fetch_tasks(listed, hub.is_offline)
        click.echo(printable(f"tasks: {', '.join(config.forgetting.tasks)}"))
    return ExitCode.DONE
