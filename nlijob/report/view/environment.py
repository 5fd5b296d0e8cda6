"""The machine that the job ran on, and the packages of the training process."""

from __future__ import annotations

from nlijob.analysis.wording import gib, plural
from nlijob.records.job import Environment
from nlijob.report.view.parts import Fact, Table, row, text_columns


def environment_facts(environment: Environment) -> tuple[Fact, ...]:
    """Devices, number formats, and versions of the platform."""
    return (
        Fact("device", environment.device),
        *(
            Fact("GPU", gpu.name, f"compute capability {gpu.compute_capability}")
            for gpu in environment.gpus
        ),
        Fact("CUDA", environment.cuda_version or "none"),
        Fact("compute dtype", environment.compute_dtype),
        Fact("attention", environment.attention),
        Fact("CPU", environment.cpu_name, plural(environment.cpu_count, "core")),
        Fact("RAM", gib(environment.ram_bytes)),
        Fact("platform", environment.platform),
        Fact("Python", environment.python_version),
    )


def packages_table(environment: Environment) -> Table:
    """Packages of the training process with their versions, sorted by name."""
    return Table(
        "Packages in the training process",
        text_columns("package", "version"),
        tuple(row(*item) for item in sorted(environment.packages.items())),
    )
