"""Disk and memory that a job needs, estimated, and whether this machine has them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from nlijob.analysis.wording import gib
from nlijob.config import JobConfig, seeds_of
from nlijob.disk import existing_folder, free_bytes, size_text
from nlijob.errors import ExitCode
from nlijob.records.job import Split
from nlijob.records.planning import ModelLook, Obstacle, PlannedDisk, PlannedMemory

FLOAT_BYTES = 4
ADAPTER_COPIES = 2
"""The selected adapter, and a new copy of it while it replaces the earlier one."""
STATE_COPIES = 2
"""A checkpoint with weights and AdamW's two averages, and the one that it replaces."""
ROW_BYTES = 1_000
"""A row, its predictions of all stages but the epochs, and its place on the page."""
PREDICTION_BYTES = 250
PAGE_BYTES = 10_000_000
TRAINED_BYTES = 16
"""Of each trained parameter: weight, gradient and AdamW's two averages in float32."""
LIBRARIES_BYTES = 1_000_000_000
"""What the job's processes take on a CPU without a model: 0.87 GB for the demo with 64 rows."""
RESERVED_BYTES = 2 * 2**30
"""What the job keeps free for activations before it dequantises weights (`nlijob.gpu.engine`)."""
KEPT_VALUES = 10
"""Activations of the hidden size that a layer keeps for the backward pass, for each token: for
phi-2's shape, 4-bit weights take 0.73 GiB more without gradient checkpointing than with it."""


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


def memory_need(config: JobConfig, look: ModelLook) -> PlannedMemory:
    """Memory of the leanest and of the fastest mode: weights, adapter, optimizer, activations."""
    rows = config.train.micro_batch_size or config.train.batch_size
    tokens = look.tokens["train"].mean if look.tokens else 0
    item = FLOAT_BYTES if look.compute_dtype == "float32" else FLOAT_BYTES // 2
    hidden = (look.layers or 0) * (look.hidden_size or 0) * item * tokens
    libraries = LIBRARIES_BYTES if config.model.device == "cpu" else 0
    base = libraries + look.weights_bytes + TRAINED_BYTES * look.trainable_parameters
    least = base + hidden  # one row
    kept = rows * hidden * KEPT_VALUES
    dense = look.dequantized_bytes + RESERVED_BYTES if look.dequantized_bytes else 0
    fastest = least if config.train.gradient_checkpointing else base + max(kept, dense)
    return PlannedMemory(round(least), round(fastest), look.free_memory_bytes)


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


def memory_obstacles(memory: PlannedMemory) -> Iterator[Obstacle]:
    """The lack of memory for the leanest mode."""
    if memory.free_bytes is not None and memory.least_bytes > memory.free_bytes:
        yield Obstacle(
            ExitCode.HARDWARE,
            f"out of memory: even the leanest execution mode needs about "
            f"{gib(memory.least_bytes)}, and {gib(memory.free_bytes)} are free",
            "end other programs, or use a smaller model or a machine with more memory",
        )


def _device(need: PlannedDisk) -> int:
    try:
        return os.stat(existing_folder(Path(need.folder))).st_dev
    except OSError:
        return -1
