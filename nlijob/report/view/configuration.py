"""Every value the job was given, and where it ran."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from nlijob.analysis.wording import counted, gib, plural
from nlijob.config import JobConfig, is_section
from nlijob.records.job import Environment
from nlijob.records.outcome import Results
from nlijob.records.tracking import TrackerState
from nlijob.report.view.parts import Fact, Table, View, row, text_columns
from nlijob.report.view.text import visible
from nlijob.tracking.packages import TITLES


def configuration_section(results: Results) -> View:
    """The command as it was given, all settings by section, and the environment."""
    return View(
        command=visible(" ".join(results.run.command)),
        tracking=tuple(map(_tracking_line, results.tracking)),
        settings=tuple(configuration_tables(results.run.config)),
        environment=_environment_facts(results.environment),
        packages=_packages_table(results.environment),
    )


def _tracking_line(state: TrackerState) -> str:
    """Where a tracker has the run, or why it has not."""
    title = TITLES.get(state.tracker, state.tracker)
    run = f", as run {visible(state.run)}" if state.run else ""
    if state.fault:
        return f"Tracking with {title}{run} failed: {visible(state.fault)}"
    return f"Tracked with {title}{run}."


def configuration_tables(config: JobConfig) -> Iterable[Table]:
    """All settings, one table per section; settings outside the sections come first.

    The search has one only where there was a search.
    """
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    if not config.sweep.space:
        del values["sweep"]
    sections = {name: value for name, value in values.items() if is_section(value)}
    repeated = {name: v for name, v in values.items() if isinstance(v, tuple) and v}
    yield _settings(
        "job", {n: v for n, v in values.items() if n not in sections and n not in repeated}
    )
    for name, section in sections.items():
        yield _settings(name, _keys(section))
    for name, tables in repeated.items():
        yield from (_settings(f"{name} {one.name}", _keys(one)) for one in tables)


def _keys(section: Any) -> dict[str, Any]:
    return {field.name: getattr(section, field.name) for field in dataclasses.fields(section)}


def _settings(section: str, values: Mapping[str, Any]) -> Table:
    return Table(
        section,
        text_columns("setting", "value"),
        tuple(row(name, setting_text(value)) for name, value in values.items()),
    )


def setting_text(value: Any) -> str:
    """A configuration value as text."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return visible(", ".join(map(repr, value))) or "none"
    if isinstance(value, dict):
        return visible(", ".join(f"{key} = {item}" for key, item in value.items())) or "none"
    return visible(str(value)) or "empty"


def _environment_facts(environment: Environment) -> tuple[Fact, ...]:
    return (
        Fact("device", environment.device),
        *_gpu_facts(environment),
        Fact("CUDA", environment.cuda_version or "none"),
        Fact("compute dtype", environment.compute_dtype),
        Fact("attention", environment.attention),
        Fact("CPU", environment.cpu_name, plural(environment.cpu_count, "core")),
        Fact("RAM", gib(environment.ram_bytes)),
        Fact("platform", environment.platform),
        Fact("Python", environment.python_version),
    )


def _gpu_facts(environment: Environment) -> Iterable[Fact]:
    """A fact for each kind of GPU, with their number."""
    kinds = Counter((gpu.name, gpu.compute_capability, gpu.host) for gpu in environment.gpus)
    for (name, capability, host), number in kinds.items():
        where = f"; host {visible(host)}" if host else ""
        yield Fact("GPU", counted([name] * number), f"compute capability {capability}{where}")


def _packages_table(environment: Environment) -> Table:
    return Table(
        "Packages in the training process",
        text_columns("package", "version"),
        tuple(row(*item) for item in sorted(environment.packages.items())),
    )
