"""Where the job ran: the machine, and the packages of the process that trained."""

from __future__ import annotations

from nlijob.analysis.wording import gib, plural
from nlijob.records import Environment
from nlijob.report.view.parts import Fact, Row, Table, text_columns


def environment_facts(environment: Environment) -> tuple[Fact, ...]:
    """Devices, number formats and versions beneath the packages."""
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
    """The packages that trained, by name, with their versions."""
    return Table(
        "Packages in the process that trained",
        text_columns("package", "version"),
        tuple(Row(item) for item in sorted(environment.packages.items())),
    )
