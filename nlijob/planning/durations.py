"""How long a job takes, scaled from what was measured (benchmarks/results).

An estimate is two bounds. It is given only where something alike was measured: on a GPU of the same
model, a network of similar size; on a CPU, with bounds wide enough for other CPUs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from nlijob.config import JobConfig, seeds_of
from nlijob.planning.memory import memory_need
from nlijob.records.job import Split
from nlijob.records.planning import ModelLook, PlannedTime, Span
from nlijob.sweep import most_epochs, search_epochs

NOT_KNOWN = "not known for this machine"


@dataclass(frozen=True)
class GpuFigures:
    """Speeds of one model on one GPU: benchmarks/results/2026-11-21-nvidia-h200-ways*.json."""

    gpu: str
    model_type: str
    multiplied_weights: int
    mean_tokens: float
    training_per_s: float
    """Rows per second in the fastest mode, with dropout and without warm-up."""
    scoring_per_s: float
    plain_training_per_s: float
    plain_scoring_per_s: float
    lean_training_per_s: float | None = None
    """With gradient checkpointing; None where that was not measured."""
    lean_scoring_per_s: float | None = None


@dataclass(frozen=True)
class CpuFigures:
    """Speeds on two cores of a Xeon with AMX: the table "On a CPU" of benchmarks/results."""

    hidden_size: int
    layers: int
    float32_training_per_s: float
    bfloat16_training_per_s: float
    float32_scoring_per_s: float
    bfloat16_scoring_per_s: float


GPUS = (
    GpuFigures("NVIDIA H200", "phi", 2_516_582_400, 59.6, 778, 3191, 50, 827, 193, 661),
    GpuFigures("NVIDIA H200", "", 2_818_572_288, 59.6, 335, 1968, 26, 844),
)
"""Phi has fused layers; the other line stands for all models that are computed as loaded."""
CPUS = (
    CpuFigures(192, 4, 239, 241, 766, 1262),
    CpuFigures(384, 12, 34, 47, 106, 183),
    CpuFigures(768, 12, 14, 23, 32, 85),
    CpuFigures(2048, 8, 4.1, 10.5, 8.2, 23),
)
"""The lower figure of each two runs."""
GPU_ROWS = 8
"""Rows in the steps that were measured on a GPU; fewer rows use it less well."""
CPU_TOKENS = 85.0
"""Mean tokens of the rows on which `CPUS` were measured."""
CPU_CORES = 2
MOST_SCALED = 4.0
"""Largest ratio of a row's work to that of the row measured on a GPU, either way."""
GPU_LOW, GPU_HIGH = 0.7, 1.5
"""Bounds on a GPU, as factors of the scaled time: the same job varied so between hosts."""
CPU_LOW, CPU_HIGH = 0.5, 4.0
"""Bounds on a CPU: others were up to half as fast for the demo, and a busy one is slower still."""
PLAIN_HIGH = 4.0
"""Upper bound in the plain loop, whose speed depends on the host's CPU."""
GPU_REST_S = (10.0, 40.0)
"""The rest of a job on a GPU: 12 s where libraries and model were in memory, 15 s where not."""
CPU_REST_S = (15.0, 150.0)
"""The rest of a job of the demo on a CPU, from an idle machine to a busy one."""
QUANTISE_S_PER_WEIGHT = 54 / 2.5e9
"""Reading and quantising phi-2's shape on two CPU cores took 54 s; its 4-bit copy takes 1 s."""
FREE_OUTPUT_S_PER_WEIGHT = 40 / 2.5e9
"""Upper bound on a CPU for free output and word importance of the shown cases, by hand."""


@dataclass(frozen=True)
class _Speed:
    """Seconds per row, as bounds."""

    training: Span
    scoring: Span
    rest: Span
    basis: str


def expected_time(
    config: JobConfig,
    look: ModelLook,
    rows: Mapping[Split, int | None],
    further: Sequence[int | None] = (),
    processes: int = 1,
) -> PlannedTime:
    """The time of a job with this many rows in each split, without downloads.

    `further`: the rows of each further test set. `processes`: those of the GPU side.
    """
    train, validation, test = (rows[split] for split in ("train", "validation", "test"))
    if not look.tokens or train is None or validation is None or test is None or None in further:
        return PlannedTime(None, None, "not known before the rows are here")
    tokens = look.tokens["train"].mean
    speed = _on_cpu(look, tokens) if config.model.device == "cpu" else _on_gpu(config, look, tokens)
    if isinstance(speed, str):
        return PlannedTime(None, None, speed)
    trainings = len(seeds_of(config.train))
    trained = train * (most_epochs(config) * trainings + search_epochs(config))
    elsewhere = sum(one or 0 for one in further)
    scored = scored_rows(config, validation, test) + (1 + trainings) * elsewhere
    training = _shared(_times(speed.training, trained), processes, trainings)
    scoring = _times(speed.scoring, scored / processes)
    return PlannedTime(
        job=Span(
            training.low_s + scoring.low_s + speed.rest.low_s,
            training.high_s + scoring.high_s + speed.rest.high_s,
        ),
        training=training,
        basis=speed.basis + (f"; divided among {processes} processes" if processes > 1 else ""),
    )


def _shared(training: Span, processes: int, trainings: int) -> Span:
    """The time of all trainings on several GPUs.

    At best they share all of it. At worst each training is done by one of them.
    """
    rounds = math.ceil(trainings / processes)
    return Span(training.low_s / processes, training.high_s * rounds / trainings)


def scored_rows(config: JobConfig, validation: int, test: int) -> int:
    """Rows scored in the whole job, over all stages."""
    each_epoch = validation + (test if config.eval.test_each_epoch else 0)
    more = test * (bool(config.eval.few_shot) + config.eval.blank_premise)
    of_training = each_epoch * most_epochs(config) + validation + test
    of_search = validation * search_epochs(config)
    return validation + test + of_search + of_training * len(seeds_of(config.train)) + more


def _on_gpu(config: JobConfig, look: ModelLook, tokens: float) -> _Speed | str:
    asked = look.device_name or GPUS[0].gpu  # where no GPU is here, one that was measured
    of_gpu = [figures for figures in GPUS if figures.gpu in asked]
    if not of_gpu:
        measured = " and ".join(sorted({figures.gpu for figures in GPUS}))
        return f"{NOT_KNOWN}: measured on {measured} only, not on {look.device_name}"
    figures = next((f for f in of_gpu if f.model_type == look.model_type), of_gpu[-1])
    ratio = look.multiplied_weights * tokens / (figures.multiplied_weights * figures.mean_tokens)
    if not 1 / MOST_SCALED <= ratio <= MOST_SCALED:
        return f"{NOT_KNOWN}: a row takes {ratio:.2g} times the work of the rows that were measured"
    slow, fast = _modes(config, look, figures)
    if slow is None or fast is None:
        return f"{NOT_KNOWN}: the execution mode that fits into memory was not measured"
    rows = config.train.micro_batch_size or config.train.batch_size
    fewer = max(1.0, GPU_ROWS / rows)
    return _Speed(
        training=Span(GPU_LOW * ratio / fast.training, slow.high * fewer * ratio / slow.training),
        scoring=Span(GPU_LOW * ratio / fast.scoring, slow.high * ratio / slow.scoring),
        rest=Span(*GPU_REST_S),
        basis=f"scaled from {_shape(figures)} on one {figures.gpu}"
        + ("" if look.device_name else "; not known for other GPUs, and there is none here"),
    )


class _Mode(NamedTuple):
    """Rows per second in an execution mode, and the factor of the time's upper bound."""

    training: float
    scoring: float
    high: float = GPU_HIGH


def _modes(
    config: JobConfig, look: ModelLook, figures: GpuFigures
) -> tuple[_Mode | None, _Mode | None]:
    """The slowest and the fastest mode that the job may take; None for one not measured."""
    fastest = _Mode(figures.training_per_s, figures.scoring_per_s)
    plain = _Mode(figures.plain_training_per_s, figures.plain_scoring_per_s, PLAIN_HIGH)
    lean: _Mode | None = None
    if figures.lean_training_per_s and figures.lean_scoring_per_s:
        lean = _Mode(figures.lean_training_per_s, figures.lean_scoring_per_s)
    if config.machine.accelerate_config:
        return None, None
    if config.train.speed == "plain":
        return plain, plain
    if config.train.gradient_checkpointing:
        return lean, lean
    memory = memory_need(config, look)
    is_short = memory.free_bytes is not None and memory.free_bytes < memory.fastest_bytes
    return (lean if is_short else fastest), fastest


def _shape(figures: GpuFigures) -> str:
    return "phi-2's shape" if figures.model_type == "phi" else "the shape of Llama 3.2 3B"


def _on_cpu(look: ModelLook, tokens: float) -> _Speed:
    work = look.multiplied_weights * tokens
    is_short = look.compute_dtype == "bfloat16"
    training_s = _interpolated(
        work, [f.bfloat16_training_per_s if is_short else f.float32_training_per_s for f in CPUS]
    )
    scoring_s = _interpolated(
        work, [f.bfloat16_scoring_per_s if is_short else f.float32_scoring_per_s for f in CPUS]
    )
    faster = min(1.0, CPU_CORES / look.device_cores)
    weights = look.multiplied_weights
    return _Speed(
        training=Span(CPU_LOW * faster * training_s, CPU_HIGH * training_s),
        scoring=Span(CPU_LOW * faster * scoring_s, CPU_HIGH * scoring_s),
        rest=Span(
            CPU_REST_S[0],
            CPU_REST_S[1] + weights * (QUANTISE_S_PER_WEIGHT * 2 + FREE_OUTPUT_S_PER_WEIGHT),
        ),
        basis="scaled from two cores of a Xeon with AMX; other CPUs differ by a multiple",
    )


def _interpolated(work: float, per_s: Sequence[float]) -> float:
    """Seconds for a row of this work, between the rows measured, on logarithmic axes.

    Below the smallest, a row takes as long as that; above the largest, in proportion to its work.
    """
    points = [
        (12 * f.layers * f.hidden_size**2 * CPU_TOKENS, 1 / speed)
        for f, speed in zip(CPUS, per_s, strict=True)
    ]
    for (low, low_s), (high, high_s) in pairwise(points):
        if low <= work <= high:
            share = math.log(work / low) / math.log(high / low)
            return float(low_s * (high_s / low_s) ** share)
    (smallest, fastest_s), (largest, slowest_s) = points[0], points[-1]
    return fastest_s if work < smallest else slowest_s * work / largest


def _times(span: Span, rows: float) -> Span:
    return Span(span.low_s * rows, span.high_s * rows)
