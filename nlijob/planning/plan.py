"""Makes the plan of a job: everything that it would resolve, without doing any of it.

Rows and task are written to a temporary folder as for a job, and a child process looks at model and
rows. That folder is deleted again; in the hub's cache only small files may be added.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nlijob import __version__, disk
from nlijob.analysis.columns import check_columns
from nlijob.config import JobConfig, TransferConfig
from nlijob.data.elsewhere import data_of, of_set, read_set
from nlijob.data.splits import open_splits, with_labels_of
from nlijob.data.subset import build_subset, chosen_indices, rule_text
from nlijob.data.tasks import tasks_stamp
from nlijob.data.texts import read_texts
from nlijob.errors import ExitCode, JobError
from nlijob.hub import Hub
from nlijob.planning.child import look
from nlijob.planning.durations import expected_time
from nlijob.planning.memory import memory_need, memory_obstacles
from nlijob.planning.needs import disk_needs, disk_obstacles
from nlijob.planning.processes import chosen_processes
from nlijob.planning.sources import FoundData, FoundModel, find_data, find_model
from nlijob.records.job import SPLITS, Example, Manifest, RunRecord, Split, WorkerTask
from nlijob.records.planning import JobPlan, ModelLook, Obstacle, PlannedRows, PlannedSet
from nlijob.rundir import RunDir, now, write_record, write_records
from nlijob.sweep import count_candidates, search_epochs

STAND_IN = Example(0, "A man is playing a guitar.", "A person makes music.", 0)
"""Stands for the rows of a data set that is not here, so that the prompt can be checked."""


@dataclass(frozen=True)
class Wanted:
    """The job that is planned."""

    recipe: str
    config: JobConfig
    run: RunDir
    hub: Hub
    tell: Callable[[str], None]
    """Gets a line about what is being done."""


def make_plan(wanted: Wanted, obstacles: list[JobError]) -> JobPlan:
    """The plan. `obstacles` are those that are known already, such as a missing GPU.

    Raises the JobError with which the job would end before it does anything on the GPU.
    """
    model = find_model(wanted.config.model, wanted.hub)
    data = find_data(wanted.config.data, wanted.hub)
    with tempfile.TemporaryDirectory(prefix="nlijob-plan-") as folder:
        scratch = RunDir(Path(folder))
        with disk.disk_faults(scratch.root), _instead(model.fault):
            wanted, manifest = _take_rows(wanted, data, scratch)
            read_texts(wanted.config.forgetting.texts)  # these two raise what the job would
            tasks_stamp(wanted.config.forgetting)
            sets = tuple(_planned_set(wanted, one) for one in wanted.config.transfer)
            found = _look(wanted, model, scratch)
    return _plan(wanted, model, data, manifest, sets, found, obstacles)


def exit_error(plan: JobPlan) -> Obstacle | None:
    """The fault of model or data that ends the job on any machine, if there is one."""
    of_machine = (ExitCode.HARDWARE, ExitCode.DISK)
    return next((fault for fault in plan.obstacles if fault.exit_code not in of_machine), None)


# ---------------------------------------------------------------- the parts


@contextlib.contextmanager
def _instead(fault: JobError | None) -> Iterator[None]:
    """Raise `fault`, if there is one, in place of an error of the block.

    The job would meet it first, and it may be why the block failed.
    """
    try:
        yield
    except Exception:
        if fault:
            raise fault from None
        raise


def _take_rows(wanted: Wanted, data: FoundData, scratch: RunDir) -> tuple[Wanted, Manifest | None]:
    """Choose the rows as the job does, and take on their labels; None if they are not here."""
    if not data.are_here:
        write_stand_in(scratch)
        return wanted, None
    wanted.tell("reading the rows")
    opened = open_splits(wanted.config.data, wanted.hub)
    wanted = dataclasses.replace(wanted, config=with_labels_of(wanted.config, opened))
    manifest = build_subset(wanted.config.data, scratch, wanted.hub, opened)
    check_columns(wanted.config.report.slice_columns, manifest.splits["test"].further_columns)
    for split in manifest.splits.values():
        if split.origin:
            wanted.tell(f"{split.split}: {split.origin}")
    return wanted, manifest


def _planned_set(wanted: Wanted, one: TransferConfig) -> PlannedSet:
    """What is known of a further test set; its rows are read if they are here."""
    config, hub = wanted.config, wanted.hub
    data = data_of(one, config.data)
    with of_set(one):
        found = find_data(data, hub)
    if not found.are_here:
        as_own = dataclasses.replace(config, data=data)
        return PlannedSet(one.name, found.files, _rows_by_card(as_own, found, "test"), ())
    wanted.tell(f"reading the rows of {one.name}")
    read = read_set(one, config.data, hub).manifest
    rows = PlannedRows(read.rows.rule, read.rows.source_rows, read.rows.rows, is_exact=True)
    return PlannedSet(one.name, found.files, rows, read.label_names)


def write_stand_in(scratch: RunDir) -> None:
    """Write a row in place of those of each split."""
    for split in SPLITS:
        write_records(scratch.subset(split), [STAND_IN])


def write_task(scratch: RunDir, recipe: str, config: JobConfig, model: Path | None) -> None:
    """Write configuration and task as for a job; no task where there is no model."""
    record = RunRecord(scratch.root.name, recipe, config, (), now(), __version__)
    write_record(scratch.config, record)
    if model is not None:
        task = WorkerTask(0, 0.0, 0.0, str(model.absolute()), "", {})
        write_record(scratch.worker_task, task)


def _look(wanted: Wanted, model: FoundModel, scratch: RunDir) -> ModelLook:
    wanted.tell("looking at the model (a child process imports torch)")
    write_task(scratch, wanted.recipe, wanted.config, model.folder)
    return look(scratch)


def _plan(
    wanted: Wanted,
    model: FoundModel,
    data: FoundData,
    manifest: Manifest | None,
    sets: tuple[PlannedSet, ...],
    found: ModelLook,
    obstacles: list[JobError],
) -> JobPlan:
    config = wanted.config
    rows = _rows(config, data, manifest)
    if manifest is None:
        found = _without_rows(found)
    counts = {split: _model_rows(planned, found, split) for split, planned in rows.items()}
    per_epoch = _ceiling(counts["train"], config.train.batch_size)
    files = (model.files, data.files, *(one.files for one in sets))
    download = [one.download_bytes for one in files]
    disks = disk_needs(config, found, counts, wanted.run.root, download)
    processes = chosen_processes(config, wanted.run)
    memory = memory_need(config, found, processes.number)
    met = [*obstacles, *([model.fault] if model.fault else [])]
    return JobPlan(
        recipe=wanted.recipe,
        config=config,
        run=str(wanted.run.root),
        run_exists=wanted.run.config.exists(),
        model=model.files,
        dataset=data.files,
        look=found,
        rows=rows,
        steps_per_epoch=per_epoch,
        optimizer_steps=None if per_epoch is None else per_epoch * config.train.epochs,
        training_tokens=_training_tokens(config, found, counts["train"]),
        disk=disks,
        memory=memory,
        time=expected_time(
            config, found, counts, [one.rows.rows for one in sets], processes.number
        ),
        warnings=manifest.warnings if manifest else (),
        obstacles=(
            *(Obstacle(error.exit_code, error.message, error.hint) for error in met),
            *disk_obstacles(disks),
            *memory_obstacles(memory),
        ),
        transfer=sets,
        candidates=count_candidates(config),
        search_epochs=search_epochs(config),
        processes=processes,
    )


def _rows(
    config: JobConfig, data: FoundData, manifest: Manifest | None
) -> dict[Split, PlannedRows]:
    if manifest:
        return {
            split: PlannedRows(one.rule, one.source_rows, one.rows, is_exact=True)
            for split, one in ((split, manifest.splits[split]) for split in SPLITS)
        }
    return {split: _rows_by_card(config, data, split) for split in SPLITS}


def _model_rows(planned: PlannedRows, found: ModelLook, split: Split) -> int | None:
    """Rows of a split that are not too long, estimated where not all were tokenised."""
    tokens = found.tokens.get(split)
    if planned.rows is None or tokens is None:
        return planned.rows
    return planned.rows - round(planned.rows * tokens.too_long / tokens.counted)


def _rows_by_card(config: JobConfig, data: FoundData, split: Split) -> PlannedRows:
    wanted = config.data.split_size(split)
    known = [
        data.source_rows.get(name) for name in getattr(config.data, f"{split}_split").split("+")
    ]
    source = None if None in known else sum(rows or 0 for rows in known)
    taken = None if source is None else len(chosen_indices(source, wanted))
    return PlannedRows(rule_text(wanted), source, taken, is_exact=False)


def _without_rows(found: ModelLook) -> ModelLook:
    """The look without the counts of the rows that stood in for those that are not here."""
    return dataclasses.replace(found, tokens={})


def _ceiling(rows: int | None, size: int) -> int | None:
    return None if rows is None else math.ceil(rows / size)


def _training_tokens(config: JobConfig, found: ModelLook, rows: int | None) -> int | None:
    if rows is None or not found.tokens:
        return None
    return round(found.tokens["train"].mean * rows * config.train.epochs)
