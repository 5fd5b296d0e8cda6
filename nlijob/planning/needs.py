"""Disk space that a job needs, estimated, and whether this machine has it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from nlijob.config import JobConfig, seeds_of
from nlijob.disk import existing_folder, free_bytes, size_text
from nlijob.errors import ExitCode
from nlijob.records.job import Split
from nlijob.records.planning import ModelLook, Obstacle, PlannedDisk

FLOAT_BYTES = 4
ADAPTER_COPIES = 2
"""The selected adapter, and a new copy of it while it replaces the earlier one."""
STATE_COPIES = 2
"""A checkpoint with weights and AdamW's two averages, and the one that it replaces."""
ROW_BYTES = 1_000
"""A row, its predictions of all stages but the epochs, and its place on the page."""
PREDICTION_BYTES = 250
PAGE_BYTES = 10_000_000


def disk_needs(
    config: JobConfig,
    look: ModelLook,
    rows: Mapping[Split, int | None],
    run: Path,
    downloads: Sequence[int | None],
) -> tuple[PlannedDisk, ...]:
    """The space for the run's folder, and for what is downloaded to the cache.

    `downloads`: bytes of model and data set that are not in the cache; None where not known.
    """
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).expanduser()
    missing = [size for size in downloads if size is not None]
    download = sum(missing) if len(missing) == len(downloads) else None
    needs: list[tuple[Path, int | None, str]] = [(run, _run_bytes(config, look, rows), "the run")]
    if download != 0:
        needs.append((cache, download, "downloads"))
    return tuple(
        PlannedDisk(str(folder), needed, free_bytes(folder), purpose)
        for folder, needed, purpose in needs
    )


def _run_bytes(config: JobConfig, look: ModelLook, rows: Mapping[Split, int | None]) -> int:
    """Estimate of the largest size of the run's folder while the job works."""
    adapter = FLOAT_BYTES * look.trainable_parameters
    trainings = len(seeds_of(config.train))
    kept = trainings if config.train.keep == "all" else min(trainings, 2)  # the best, and the last
    checkpoints = adapter * (kept * config.train.epochs + ADAPTER_COPIES + 3 * STATE_COPIES)
    known = {split: count or 0 for split, count in rows.items()}
    each_epoch = known["validation"] + known["test"] * config.eval.test_each_epoch
    predictions = PREDICTION_BYTES * each_epoch * config.train.epochs * trainings
    return checkpoints + predictions + ROW_BYTES * sum(known.values()) + PAGE_BYTES


def disk_obstacles(needs: Sequence[PlannedDisk]) -> Iterator[Obstacle]:
    """The disks that are too small; needs on one disk are added up."""
    known = [need for need in needs if need.needed_bytes is not None]
    for _, group in groupby(sorted(known, key=_device), key=_device):
        on_one = list(group)
        needed = sum(need.needed_bytes or 0 for need in on_one)
        free = on_one[0].free_bytes
        if free is not None and needed > free:
            yield Obstacle(
                ExitCode.DISK,
                f"{' and '.join(need.folder for need in on_one)}: about {size_text(needed)} "
                f"needed, {size_text(free)} free",
                "free space there, or choose other folders (--runs-dir, HF_HOME)",
            )


def _device(need: PlannedDisk) -> int:
    try:
        return os.stat(existing_folder(Path(need.folder))).st_dev
    except OSError:
        return -1
