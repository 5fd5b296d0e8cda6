"""A configuration as a recipe: the TOML text from which it can be read again."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from nlijob.config import JobConfig, ModelConfig, SweepConfig, without_machine


def best_recipe(config: JobConfig) -> str:
    """The recipe of a run whose settings were searched: with them, and without the search.

    It runs on whatever device and GPUs there are.
    """
    device = dataclasses.replace(config.model, device=ModelConfig(name="").device)
    found = dataclasses.replace(config, model=device, sweep=SweepConfig())
    return recipe_text(without_machine(found))


def recipe_text(config: JobConfig) -> str:
    """The whole configuration as TOML."""
    tables = dataclasses.asdict(config)
    if not config.sweep.space:
        del tables["sweep"]
    return "\n".join(_lines(tables)) + "\n"


def _lines(tables: Mapping[str, Any]) -> Iterator[str]:
    plain = {key: value for key, value in tables.items() if not _is_table(value)}
    yield from _keys(plain)
    for section, value in tables.items():
        if isinstance(value, Mapping) and value:
            yield from ("", f"[{section}]", *_keys(value))
        elif _is_table(value):
            for one in value:
                yield from ("", f"[[{section}]]", *_keys(one))


def _is_table(value: object) -> bool:
    is_of_tables = isinstance(value, tuple) and any(isinstance(one, Mapping) for one in value)
    return isinstance(value, Mapping) or is_of_tables


def _keys(table: Mapping[str, Any]) -> Iterator[str]:
    """A line for each key. What is not set is left out, as TOML has no word for it."""
    for key, value in table.items():
        if value is not None and value != {} and not (value == () and key == "transfer"):
            yield f"{_key(key)} = {_value(value)}"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name, re.ASCII) else _text(name)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items())
        return f"{{{pairs}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, value))}]"
    return _text(value) if isinstance(value, str) else repr(value)


def _text(value: str) -> str:
    """A basic string: JSON's escapes are TOML's as well, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
