"""What a run took of the machine, from its hardware samples and from torch's own count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from nlijob.records import (
    Environment,
    GpuInfo,
    GpuSample,
    GpuUse,
    HardwareSample,
    Memory,
    ResourceUse,
)

Number = TypeVar("Number", int, float)


def resource_use(
    environment: Environment,
    samples: Sequence[HardwareSample],
    memories: Sequence[Memory],
) -> ResourceUse:
    """Means and peaks over all attempts; None for whatever was not measured.

    `memories` are torch's peaks of every stage on the GPU.
    """
    return ResourceUse(
        samples=len(samples),
        gpus=tuple(_gpu_use(gpu, samples, environment) for gpu in environment.gpus),
        peak_allocated_bytes=_maximum(memory.peak_allocated_bytes for memory in memories),
        peak_reserved_bytes=_maximum(memory.peak_reserved_bytes for memory in memories),
        mean_cpu_load=_mean(sample.cpu_load for sample in samples),
        max_ram_used_bytes=_maximum(sample.ram_used_bytes for sample in samples),
        min_disk_free_bytes=min((sample.disk_free_bytes for sample in samples), default=None),
    )


def gpu_sample(gpu: GpuInfo, sample: HardwareSample, environment: Environment) -> GpuSample | None:
    """This GPU's part of a sample: the same uuid, or the only GPU where torch gave no uuid."""
    if gpu.uuid is None:
        alone = len(sample.gpus) == 1 and len(environment.gpus) == 1
        return sample.gpus[0] if alone else None
    return next((one for one in sample.gpus if _plain(one.uuid) == _plain(gpu.uuid)), None)


def total_energy_j(gpus: Sequence[GpuUse]) -> float | None:
    """Energy of all GPUs; None where any was not measured, as a part would pass for the whole."""
    measured = [gpu.energy_j for gpu in gpus if gpu.energy_j is not None]
    return sum(measured) if measured and len(measured) == len(gpus) else None


def _gpu_use(gpu: GpuInfo, samples: Sequence[HardwareSample], environment: Environment) -> GpuUse:
    found = [(sample, gpu_sample(gpu, sample, environment)) for sample in samples]
    own = [(sample, one) for sample, one in found if one is not None]
    return GpuUse(
        name=gpu.name,
        uuid=gpu.uuid,
        driver_version=gpu.driver_version,
        total_memory_bytes=gpu.total_memory_bytes,
        mean_load=_mean(one.load for _, one in own),
        mean_training_load=_mean(one.load for sample, one in own if sample.stage == "train"),
        max_load=_maximum(one.load for _, one in own),
        max_memory_used_bytes=_maximum(one.memory_used_bytes for _, one in own),
        energy_j=_energy_j([(sample.attempt, one) for sample, one in own]),
        mean_power_w=_mean(one.power_w for _, one in own),
        max_temperature_c=_maximum(one.temperature_c for _, one in own),
    )


def _energy_j(samples: Sequence[tuple[int, GpuSample]]) -> float | None:
    """Energy over all attempts, from the driver's running total within each.

    None where any attempt of two samples or more gave none: a sum that leaves one out would be
    too low without saying so.
    """
    used: list[float] = []
    for attempt in sorted({attempt for attempt, _ in samples}):
        own = [sample for number, sample in samples if number == attempt]
        if len(own) < 2:
            continue
        totals = [sample.energy_j for sample in own if sample.energy_j is not None]
        if len(totals) < 2 or totals[-1] < totals[0]:
            return None
        used.append(totals[-1] - totals[0])
    return sum(used) if used else None


def _plain(uuid: str) -> str:
    """A uuid as it compares: the driver writes "GPU-" before it, torch may not."""
    return uuid.lower().removeprefix("gpu-")


def _mean(values: Iterable[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None


def _maximum(values: Iterable[Number | None]) -> Number | None:
    return max((value for value in values if value is not None), default=None)
