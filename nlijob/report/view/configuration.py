"""Every value the job was given, and where it ran."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from nlijob.config import JobConfig
from nlijob.records.outcome import Results
from nlijob.report.view.environment import environment_facts, packages_table
from nlijob.report.view.parts import Table, View, row, text_columns
from nlijob.report.view.text import visible


def configuration_section(results: Results) -> View:
    """The command as it was given, all settings by section, and the environment."""
    return View(
        command=visible(" ".join(results.run.command)),
        settings=tuple(configuration_tables(results.run.config)),
        environment=environment_facts(results.environment),
        packages=packages_table(results.environment),
    )


def configuration_tables(config: JobConfig) -> Iterable[Table]:
    """All settings, one table per section; settings outside the sections come first."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    plain = {name: v for name, v in values.items() if not dataclasses.is_dataclass(v)}
    yield _settings("job", plain)
    for name, section in values.items():
        if name not in plain:
            keys = (field.name for field in dataclasses.fields(section))
            yield _settings(name, {key: getattr(section, key) for key in keys})


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
