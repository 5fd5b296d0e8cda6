"""How a run used the machine, from hardware samples and from torch's memory counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from nlijob.records.job import Environment, GpuInfo, GpuSample, HardwareSample, Machine, Memory
from nlijob.records.outcome import GpuUse, ResourceUse

Number = TypeVar("Number", int, float)


class GpusInUse:
    """The GPUs that each attempt used."""

    def __init__(self, environment: Environment, machines: Sequence[Machine]) -> None:
        """`environment` is the last attempt's and serves for every attempt without a machine."""
        self.last = environment.gpus
        self._of: Mapping[int, tuple[GpuInfo, ...]] = {m.attempt: m.gpus for m in machines}

    def at(self, attempt: int) -> tuple[GpuInfo, ...]:
        """The GPUs of one attempt."""
        return self._of.get(attempt, self.last)

    def all(self) -> list[GpuInfo]:
        """Every GPU once, starting with the GPUs of the last attempt."""
        each: dict[tuple[str, str | None], GpuInfo] = {}
        for gpus in (self.last, *self._of.values()):
            for gpu in gpus:
                each.setdefault(_identity(gpu), gpu)
        return list(each.values())


def resource_use(
    in_use: GpusInUse, samples: Sequence[HardwareSample], memories: Sequence[Memory]
) -> ResourceUse:
    """Means and peaks over all attempts; None for what was not measured.

    `memories` are torch's peaks for every stage on the GPU. A GPU of an earlier attempt with fewer
    than two samples is left out.
    """
    of_gpus = [(gpu, _own_samples(gpu, samples, in_use)) for gpu in in_use.all()]
    return ResourceUse(
        samples=len(samples),
        gpus=tuple(
            _gpu_use(gpu, own) for gpu, own in of_gpus if len(own) > 1 or gpu in in_use.last
        ),
        peak_allocated_bytes=_maximum(memory.peak_allocated_bytes for memory in memories),
        peak_reserved_bytes=_maximum(memory.peak_reserved_bytes for memory in memories),
        mean_cpu_load=_mean(sample.cpu_load for sample in samples),
        max_ram_used_bytes=_maximum(sample.ram_used_bytes for sample in samples),
        min_disk_free_bytes=min((sample.disk_free_bytes for sample in samples), default=None),
    )


def gpu_sample(uuid: str | None, sample: HardwareSample, in_use: int) -> GpuSample | None:
    """The part of a sample with the GPU's uuid, or the only part where torch gives no uuid.

    `in_use` is the number of GPUs that the sample's attempt used.
    """
    if uuid is None:
        return sample.gpus[0] if len(sample.gpus) == in_use == 1 else None
    return next((one for one in sample.gpus if _plain(one.uuid) == _plain(uuid)), None)


def total_energy_j(gpus: Sequence[GpuUse]) -> float | None:
    """Energy of all GPUs in joules; None unless all were measured, as a partial sum misleads."""
    measured = [gpu.energy_j for gpu in gpus if gpu.energy_j is not None]
    return sum(measured) if measured and len(measured) == len(gpus) else None


def _own_samples(
    gpu: GpuInfo, samples: Sequence[HardwareSample], in_use: GpusInUse
) -> list[tuple[HardwareSample, GpuSample]]:
    """The samples of the attempts that used a GPU, each with the GPU's part of it."""
    found = [
        (sample, gpu_sample(gpu.uuid, sample, len(in_use.at(sample.attempt))))
        for sample in samples
        if _identity(gpu) in map(_identity, in_use.at(sample.attempt))
    ]
    return [(sample, one) for sample, one in found if one is not None]


def _gpu_use(gpu: GpuInfo, own: Sequence[tuple[HardwareSample, GpuSample]]) -> GpuUse:
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
        attempts=tuple(sorted({sample.attempt for sample, _ in own})),
    )


def _energy_j(samples: Sequence[tuple[int, GpuSample]]) -> float | None:
    """Energy over all attempts, from the driver's running total within each attempt.

    None where an attempt with two samples or more has no energy: the sum would be too low.
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


def _identity(gpu: GpuInfo) -> tuple[str, str | None]:
    """Name and uuid of a GPU. The driver is left out: it may differ between attempts."""
    return gpu.name, None if gpu.uuid is None else _plain(gpu.uuid)


def _plain(uuid: str) -> str:
    """A uuid for comparison: the driver prefixes it with "GPU-", torch may not."""
    return uuid.lower().removeprefix("gpu-")


def _mean(values: Iterable[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None


def _maximum(values: Iterable[Number | None]) -> Number | None:
    return max((value for value in values if value is not None), default=None)
