"""How a run used the machine, from hardware samples and from torch's memory counts."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

from nlijob.records.job import Environment, GpuInfo, GpuSample, HardwareSample, Machine, Memory
from nlijob.records.outcome import GpuUse, Imbalance, ResourceUse

Number = TypeVar("Number", int, float)

SCORING = ("baseline", "evaluate")
"""Stages whose work is scoring."""


class GpusInUse:
    """The GPUs that each attempt used."""

    def __init__(self, environment: Environment, machines: Sequence[Machine]) -> None:
        """`environment` is the last attempt's and serves for every attempt without a machine."""
        self.last = environment.gpus
        self._of: Mapping[int, tuple[GpuInfo, ...]] = {m.attempt: m.gpus for m in machines}

    def at(self, attempt: int) -> tuple[GpuInfo, ...]:
        """The GPUs of one attempt."""
        return self._of.get(attempt, self.last)

    def attempts(self, gpu: GpuInfo, among: Iterable[int]) -> list[int]:
        """Those of some attempts that used a GPU."""
        return [one for one in among if _identity(gpu) in map(_identity, self.at(one))]

    def all(self) -> list[GpuInfo]:
        """Every GPU once, starting with the GPUs of the last attempt."""
        each: dict[tuple[str, str | None], GpuInfo] = {}
        for gpus in (self.last, *self._of.values()):
            for gpu in gpus:
                each.setdefault(_identity(gpu), gpu)
        return list(each.values())


def resource_use(
    in_use: GpusInUse,
    samples: Sequence[HardwareSample],
    memories: Sequence[Memory],
    seconds: Mapping[int, float],
) -> ResourceUse:
    """Means and peaks over all attempts; None for what was not measured.

    `samples` are in the order in which they were written. `memories` are torch's peaks for every
    stage on the GPU, `seconds` the time of each attempt. A GPU of an earlier attempt with fewer
    than two samples is left out.
    """
    of_gpus = [(gpu, _own_samples(gpu, samples, in_use)) for gpu in in_use.all()]
    gpus = tuple(
        _gpu_use(gpu, own, _sum_of(seconds, in_use.attempts(gpu, seconds)))
        for gpu, own in of_gpus
        if len(own) > 1 or gpu in in_use.last
    )
    return ResourceUse(
        samples=len(samples),
        gpus=gpus,
        peak_allocated_bytes=_maximum(memory.peak_allocated_bytes for memory in memories),
        peak_reserved_bytes=_maximum(memory.peak_reserved_bytes for memory in memories),
        mean_cpu_load=_mean(sample.cpu_load for sample in samples),
        max_ram_used_bytes=_maximum(sample.ram_used_bytes for sample in samples),
        min_disk_free_bytes=_minimum(sample.disk_free_bytes for sample in samples),
        interval_s=_interval_s(samples),
        unread=tuple(dict.fromkeys(text for sample in samples for text in sample.unread)),
        imbalance=imbalance(gpus),
        total_energy_j=total_energy_j(gpus),
    )


def imbalance(gpus: Sequence[GpuUse]) -> Imbalance | None:
    """The busiest and the least busy GPU in training; None where fewer than two were measured."""
    loads = {
        place: gpu.mean_training_load
        for place, gpu in enumerate(gpus)
        if gpu.mean_training_load is not None
    }
    if len(loads) < 2:
        return None
    busiest, idlest = max(loads, key=loads.__getitem__), min(loads, key=loads.__getitem__)
    return Imbalance(busiest, idlest, loads[busiest] - loads[idlest])


def moment_s(sample: HardwareSample) -> float:
    """When a sample was taken; before format 4 only by a clock that may have been set."""
    return sample.time_s if sample.monotonic_s is None else sample.monotonic_s


def _interval_s(samples: Sequence[HardwareSample]) -> float | None:
    """Median time between neighbouring samples of an attempt; None without any."""
    steps = [
        moment_s(later) - moment_s(before)
        for before, later in pairwise(samples)
        if before.attempt == later.attempt and moment_s(later) > moment_s(before)
    ]
    return statistics.median(steps) if steps else None


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
    attempts = set(in_use.attempts(gpu, {sample.attempt for sample in samples}))
    found = [
        (sample, gpu_sample(gpu.uuid, sample, len(in_use.at(sample.attempt))))
        for sample in samples
        if sample.attempt in attempts
    ]
    return [(sample, one) for sample, one in found if one is not None]


def _gpu_use(
    gpu: GpuInfo, own: Sequence[tuple[HardwareSample, GpuSample]], attempts_s: float | None
) -> GpuUse:
    measured = _energy(own)
    return GpuUse(
        name=gpu.name,
        uuid=gpu.uuid,
        driver_version=gpu.driver_version,
        total_memory_bytes=gpu.total_memory_bytes,
        mean_load=_mean(one.load for _, one in own),
        mean_training_load=_mean(one.load for sample, one in own if sample.stage == "train"),
        mean_scoring_load=_mean(one.load for sample, one in own if sample.stage in SCORING),
        max_load=_maximum(one.load for _, one in own),
        max_memory_used_bytes=_maximum(one.memory_used_bytes for _, one in own),
        energy_j=measured.joules,
        mean_power_w=_mean(one.power_w for _, one in own),
        max_temperature_c=_maximum(one.temperature_c for _, one in own),
        attempts=tuple(sorted({sample.attempt for sample, _ in own})),
        energy_s=measured.seconds,
        attempts_s=attempts_s,
        host=gpu.host,
    )


class _Energy(NamedTuple):
    """Energy of a GPU, and the time that it covers."""

    joules: float | None
    seconds: float | None


def _energy(own: Sequence[tuple[HardwareSample, GpuSample]]) -> _Energy:
    """Energy over all attempts, from the driver's running total within each attempt.

    It covers the time from an attempt's first sample with a total to its last. None where an
    attempt with two samples or more has no energy, or where the total was reset: the sum would be
    too low.
    """
    joules: list[float] = []
    seconds: list[float | None] = []
    for attempt in sorted({sample.attempt for sample, _ in own}):
        of_attempt = [pair for pair in own if pair[0].attempt == attempt]
        if len(of_attempt) < 2:
            continue
        totals = [(s.monotonic_s, g.energy_j) for s, g in of_attempt if g.energy_j is not None]
        if len(totals) < 2 or any(later < before for (_, before), (_, later) in pairwise(totals)):
            return _Energy(None, None)
        (start_s, start_j), (end_s, end_j) = totals[0], totals[-1]
        joules.append(end_j - start_j)
        seconds.append(None if start_s is None or end_s is None else end_s - start_s)
    known = [one for one in seconds if one is not None]
    is_known = bool(known) and len(known) == len(seconds)
    return _Energy(sum(joules) if joules else None, sum(known) if is_known else None)


def _identity(gpu: GpuInfo) -> tuple[str, str | None]:
    """Name and uuid of a GPU, or its host where it has no uuid.

    The driver is left out: it may differ between attempts.
    """
    return gpu.name, gpu.host or None if gpu.uuid is None else _plain(gpu.uuid)


def _plain(uuid: str) -> str:
    """A uuid for comparison: the driver prefixes it with "GPU-" or "MIG-", torch may not."""
    return uuid.lower().removeprefix("gpu-").removeprefix("mig-")


def _mean(values: Iterable[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None


def _minimum(values: Iterable[Number | None]) -> Number | None:
    return min((value for value in values if value is not None), default=None)


def _sum_of(seconds: Mapping[int, float], attempts: Sequence[int]) -> float | None:
    return sum(seconds[one] for one in attempts) if attempts else None


def _maximum(values: Iterable[Number | None]) -> Number | None:
    return max((value for value in values if value is not None), default=None)
