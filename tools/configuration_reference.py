"""Writes the reference part of docs/configuration.md from nlijob/config.py.

    python -m tools.configuration_reference

Text above the marker line is written by hand and kept.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal

from nlijob.config import JobConfig
from nlijob.schema import field_docstrings

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
MARKER = "<!-- Generated from nlijob/config.py: python -m tools.configuration_reference -->\n"
TYPE_NAMES = {int: "integer", float: "number", str: "string", bool: "boolean"}


def main() -> None:
    """Replace the generated part of the page."""
    by_hand, _, _ = PAGE.read_text(encoding="utf-8").partition(MARKER)
    PAGE.write_text(by_hand + MARKER + reference(), encoding="utf-8")


def reference() -> str:
    """The generated part: a heading, a description and a table of keys for each section."""
    hints = typing.get_type_hints(JobConfig)
    sections = {
        name: hint
        for name, hint in hints.items()
        if isinstance(hint, type) and dataclasses.is_dataclass(hint)
    }
    repeated: dict[str, type] = {
        name: arguments[0]
        for name, hint in hints.items()
        if (arguments := typing.get_args(hint))
        and isinstance(arguments[0], type)
        and dataclasses.is_dataclass(arguments[0])
    }
    tables = {*sections, *repeated}
    keys = [field for field in dataclasses.fields(JobConfig) if field.name not in tables]
    parts = [_section("Top level", "", JobConfig, keys)]
    for name, cls in {**sections, **repeated}.items():
        description = " ".join((cls.__doc__ or "").split())
        heading = f"`[[{name}]]`" if name in repeated else f"`[{name}]`"
        parts.append(_section(heading, description, cls, dataclasses.fields(cls)))
    return "".join(parts)


def _section(heading: str, description: str, cls: type, keys: Any) -> str:
    hints, notes = typing.get_type_hints(cls), field_docstrings(cls)
    lines = [f"\n## {heading}\n"]
    lines += [description + "\n"] if description else []
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key in keys:
        cells = (_type_text(hints[key.name]), _default(key), _escaped(notes.get(key.name, "")))
        lines.append(f"| `{key.name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _type_text(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_text(a) for a in arguments if a is not types.NoneType)
    if origin is tuple:
        return f"list of {_plural(arguments[0])}"
    if origin is dict:
        return f"table of {_plural(arguments[1])}"
    return TYPE_NAMES[hint]


def _plural(hint: Any) -> str:
    """Several values of a type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_plural, arguments))
    if origin is tuple:
        return f"lists of {_plural(arguments[0])}"
    if origin is Literal:
        return _type_text(hint)
    return f"{_type_text(hint)}s"


def _default(key: dataclasses.Field[Any]) -> str:
    """The default as a recipe would spell it."""
    if key.default_factory is not dataclasses.MISSING:
        value: Any = key.default_factory()
    elif key.default is dataclasses.MISSING:
        return "required"
    else:
        value = key.default
    if value is None:
        return "not set"
    return f"`{json.dumps(value)}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    main()
