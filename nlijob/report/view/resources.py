"""The job's use of the machine: load, memory, power and energy."""

from __future__ import annotations

from collections.abc import Iterator

from nlijob.analysis.wording import NOT_MEASURED, decimal, energy, gib, plural, points, whole
from nlijob.records.outcome import GpuUse, Results
from nlijob.report.view.machine import gpu_name, used_several
from nlijob.report.view.parts import Fact, Table, View, columns, row
from nlijob.report.view.text import percent_or, visible


def resources_section(results: Results) -> View:
    """Figures of each GPU, then of torch and of the rest of the machine."""
    use, environment = results.resources, results.environment
    several = used_several(results) and len(use.gpus) > 1
    each = () if several else use.gpus
    return View(
        no_gpu="" if use.gpus else "No GPU: this job ran on the CPU.",
        gpus=tuple((gpu.name, _gpu_facts(gpu, results.attempts)) for gpu in each),
        table=_gpu_table(results) if several else None,
        balance=_balance(results) if several else "",
        identities=tuple(_identities(results)) if several else (),
        facts=(
            *((Fact("energy of all GPUs", energy(use.total_energy_j)),) if several else ()),
            *(_torch_facts(results) if use.gpus else ()),
            Fact(
                "CPU",
                percent_or(use.mean_cpu_load, NOT_MEASURED),
                f"mean load of {environment.cpu_name}, {plural(environment.cpu_count, 'core')}",
            ),
            Fact(
                "RAM",
                gib(use.max_ram_used_bytes),
                f"peak of the job's processes; {gib(environment.ram_bytes)} in total",
            ),
            Fact("disk", gib(use.min_disk_free_bytes), "lowest free space during the job"),
        ),
        note=" ".join(filter(None, (_sampling_note(results), _unread_note(results)))),
    )


def _gpu_table(results: Results) -> Table:
    """A row of figures for each of several GPUs."""
    use = results.resources
    names = ("mean load", "in training", "in scoring", "memory used", "power", "energy")
    with_attempts = results.attempts > 1
    return Table(
        "Each GPU, by the driver",
        columns("GPU", *names, "temperature", *(["attempts"] if with_attempts else [])),
        tuple(
            row(
                f"{gpu_name(results, place)}: {visible(gpu.name)}",
                percent_or(gpu.mean_load, NOT_MEASURED),
                percent_or(gpu.mean_training_load, NOT_MEASURED),
                percent_or(gpu.mean_scoring_load, NOT_MEASURED),
                gib(gpu.max_memory_used_bytes),
                _power(gpu),
                energy(gpu.energy_j).partition(" (")[0],
                _heat(gpu),
                *([", ".join(map(str, gpu.attempts))] if with_attempts else []),
            )
            for place, gpu in enumerate(use.gpus)
        ),
    )


def _balance(results: Results) -> str:
    """Which GPU was busiest in training and which the least; "" where that was not measured."""
    found = results.resources.imbalance
    if found is None:
        return ""
    busiest, idlest = (results.resources.gpus[one] for one in (found.busiest, found.idlest))
    return (
        f"In training, {gpu_name(results, found.busiest)} was the busiest, with a mean load of "
        f"{percent_or(busiest.mean_training_load, NOT_MEASURED)}, and "
        f"{gpu_name(results, found.idlest)} the least busy, with "
        f"{percent_or(idlest.mean_training_load, NOT_MEASURED)}: "
        f"{points(found.difference).removeprefix('+')} less."
    )


def _identities(results: Results) -> Iterator[str]:
    """Memory, UUID and driver of each GPU, and what its energy covers."""
    for place, gpu in enumerate(results.resources.gpus):
        covered = covered_time(gpu)
        parts = (
            gib(gpu.total_memory_bytes),
            f"UUID {gpu.uuid or NOT_MEASURED}",
            f"driver {gpu.driver_version or NOT_MEASURED}",
            f"energy {covered}" if covered else "",
        )
        yield f"{gpu_name(results, place)}: {'; '.join(filter(None, parts))}"


def _power(gpu: GpuUse) -> str:
    return NOT_MEASURED if gpu.mean_power_w is None else f"{whole(gpu.mean_power_w)} W"


def _heat(gpu: GpuUse) -> str:
    return NOT_MEASURED if gpu.max_temperature_c is None else f"{gpu.max_temperature_c:.0f} °C"


def _gpu_facts(gpu: GpuUse, attempts: int) -> tuple[Fact, ...]:
    return (
        Fact("driver", gpu.driver_version or NOT_MEASURED),
        Fact("mean load", percent_or(gpu.mean_load, NOT_MEASURED), "over the whole job"),
        Fact("mean load in training", percent_or(gpu.mean_training_load, NOT_MEASURED)),
        Fact("highest load", percent_or(gpu.max_load, NOT_MEASURED)),
        Fact(
            "memory used (from the driver)",
            gib(gpu.max_memory_used_bytes),
            f"highest sample; {gib(gpu.total_memory_bytes)} in total",
        ),
        Fact("mean power", _power(gpu)),
        Fact("energy", energy(gpu.energy_j), covered_time(gpu)),
        Fact("highest temperature", _heat(gpu)),
        Fact("UUID", gpu.uuid or NOT_MEASURED),
        *([Fact("in attempts", ", ".join(map(str, gpu.attempts)))] if attempts > 1 else []),
    )


def covered_time(gpu: GpuUse) -> str:
    """The time that a GPU's energy covers, of the time that the GPU was in use for."""
    if gpu.energy_j is None or gpu.energy_s is None or gpu.attempts_s is None:
        return ""
    return f"measured over {gpu.energy_s:,.1f} of {gpu.attempts_s:,.1f} s"


def _torch_facts(results: Results) -> tuple[Fact, ...]:
    use = results.resources
    where = "by torch, on one GPU" if used_several(results) else "by torch"
    return (
        Fact("peak allocated", gib(use.peak_allocated_bytes), f"GPU memory allocated {where}"),
        Fact("peak reserved", gib(use.peak_reserved_bytes), f"GPU memory reserved {where}"),
    )


def _sampling_note(results: Results) -> str:
    if not results.resources.samples:
        return "The hardware was not sampled."
    every = results.resources.interval_s
    rate = "" if every is None else f", about one every {decimal(every, 2)} s"
    text = f"{plural(results.resources.samples, 'sample')}{rate}."
    if results.resources.gpus:
        text += (
            " The driver reports load, memory, power and energy for the whole card, including "
            "anything else that ran on it; torch's figures are for this job only. "
            "1 GiB is 1,073,741,824 bytes."
        )
    if any(gpu.host for gpu in results.resources.gpus):
        text += " GPUs of other hosts than the first are not sampled."
    return text


def _unread_note(results: Results) -> str:
    """What could not be read, with the reasons; "" where everything could."""
    if not results.resources.unread:
        return ""
    return f"Not read, at least at times: {visible('; '.join(results.resources.unread))}."
