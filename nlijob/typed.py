"""Converts plain data (TOML, JSON) into typed dataclasses and reports all faults at once."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")

PLAIN = (int, str, bool)
"""Types of which every value is as good as any other."""


def build(cls: type[T], data: object, where: str, faults: list[str]) -> T | None:
    """A `cls` (a dataclass) from a mapping; names and types are checked at every level.

    Every fault is appended to `faults` as "<where>.<key>: <what is wrong>". A faulty value gets its
    default, so that the caller can check the others; returns None where it has no default.
    """
    if not isinstance(data, Mapping):
        faults.append(f"{where}: expected a table of keys, got {_shown(data)}")
        return None
    fields = _fields(cls)  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            faults.append(_unknown_key(str(key), list(fields), where))
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in data and _is_exactly(data[name], field.hint):
            values[name] = data[name]
            continue
        path = f"{where}.{name}" if where else name
        if name in data:
            before = len(faults)
            value = convert(data[name], field.hint, path, faults)
            if len(faults) == before or dataclasses.is_dataclass(value):
                values[name] = value
        elif field.required:
            faults.append(f"{path}: missing")
    if any(field.required and name not in values for name, field in fields.items()):
        return None
    return cls(**values)


def convert(value: object, hint: Any, path: str, faults: list[str]) -> Any:
    """`value` as the type `hint`. Appends a fault where it does not fit.

    Raises TypeError on a hint that cannot be read from plain data.
    """
    if _is_exactly(value, hint):
        return value
    origin, arguments = _parts(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, arguments, path, faults)
    if origin is Literal:
        if value not in arguments:
            choices = ", ".join(map(repr, arguments))
            faults.append(f"{path}: {_shown(value)} is none of {choices}")
        return value
    if origin is tuple and arguments[1:] != (...,):
        raise TypeError(f"{path}: {hint} is not a tuple of any length")
    if origin is tuple and isinstance(value, list | tuple):
        if arguments[0] in PLAIN and {*map(type, value)} == {arguments[0]}:
            return tuple(value)  # some have a number for each row
        return tuple(
            item
            if _is_exactly(item, arguments[0])
            else convert(item, arguments[0], f"{path}[{i}]", faults)
            for i, item in enumerate(value)
        )
    if origin is dict and isinstance(value, Mapping):
        return {
            key: convert(item, arguments[1], f"{path}.{key}", faults) for key, item in value.items()
        }
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, path, faults)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return _as_float(value, path, faults)
    expected = origin or hint
    is_other_type = not isinstance(value, expected)
    is_bool = isinstance(value, bool) and expected is not bool
    is_nan_or_inf = isinstance(value, float) and not math.isfinite(value)
    if is_other_type or is_bool or is_nan_or_inf:
        faults.append(f"{path}: expected {_type_name(hint)}, got {_shown(value)}")
    return value


def _is_exactly(value: object, hint: Any) -> bool:
    """Whether nothing needs to be looked at or converted, as is so for nearly every value."""
    return type(value) is hint and (not isinstance(value, float) or math.isfinite(value))


@functools.cache
def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """The origin and the arguments of a type."""
    return typing.get_origin(hint), typing.get_args(hint)


def _as_float(value: int, path: str, faults: list[str]) -> float:
    try:
        return float(value)
    except OverflowError:
        faults.append(f"{path}: the number is too large")
        return math.inf


def _convert_union(value: object, arms: tuple[Any, ...], path: str, faults: list[str]) -> Any:
    """`value` as the first arm that accepts it; an arm of exactly its type is tried first."""
    if value is None and type(None) in arms:
        return None
    arms = tuple(arm for arm in arms if arm is not type(None))
    if len(arms) == 1:
        return convert(value, arms[0], path, faults)
    for arm in sorted(arms, key=lambda arm: arm is not type(value)):
        own: list[str] = []
        converted = convert(value, arm, path, own)
        if not own:
            return converted
    expected = " or ".join(map(_type_name, arms))
    faults.append(f"{path}: expected {expected}, got {_shown(value)}")
    return value


class _Field(NamedTuple):
    hint: Any
    required: bool


@functools.cache  # an outcome has thousands of records of a few classes
def _fields(cls: type[Any]) -> dict[str, _Field]:
    hints = typing.get_type_hints(cls)
    return {
        field.name: _Field(hints[field.name], _has_no_default(field))
        for field in dataclasses.fields(cls)
    }


def _unknown_key(key: str, known: list[str], where: str) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    advice = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"{where + '.' if where else ''}{key}: unknown key; {advice}"


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    origins = {tuple: "a list", dict: "a table"}
    if typing.get_origin(hint) is tuple and dataclasses.is_dataclass(typing.get_args(hint)[0]):
        return "a list of tables, each below a heading in two pairs of brackets"
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    return names.get(hint) or origins.get(typing.get_origin(hint)) or str(hint)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
