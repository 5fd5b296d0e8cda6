"""The JSON Schema (draft 2020-12) of a record, made from its dataclasses and their docstrings."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from typing import Any, Literal

from nlijob import records

DRAFT = "https://json-schema.org/draft/2020-12/schema"
PLAIN = {int: "integer", float: "number", str: "string", bool: "boolean"}

Schema = dict[str, Any]


def results_schema() -> Schema:
    """The schema of results.json."""
    return record_schema(records.Results)


def record_schema(cls: type) -> Schema:
    """The schema of a record written as JSON. Raises TypeError on a type that it does not know."""
    definitions: dict[str, Schema] = {}
    schema = _of_dataclass(cls, definitions)
    if "format_version" in schema["properties"]:
        schema["properties"]["format_version"]["const"] = records.FORMAT_VERSION
    return {"$schema": DRAFT, "title": cls.__name__, **schema, "$defs": definitions}


def _of_dataclass(cls: type, definitions: dict[str, Schema]) -> Schema:
    hints = typing.get_type_hints(cls)
    notes = field_docstrings(cls)
    properties = {}
    for field in dataclasses.fields(cls):
        schema = _of_type(hints[field.name], definitions)
        if field.name in notes:
            schema["description"] = notes[field.name]
        properties[field.name] = schema
    return {
        "type": "object",
        "description": inspect.cleandoc(cls.__doc__ or ""),
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _of_type(hint: Any, definitions: dict[str, Schema]) -> Schema:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in PLAIN:
        return {"type": PLAIN[hint]}
    if hint is type(None):
        return {"type": "null"}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of_type(argument, definitions) for argument in arguments]}
    if origin is tuple and arguments[1:] == (...,):
        return {"type": "array", "items": _of_type(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of_type(arguments[1], definitions)}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}  # stands in while the definition is made
            definitions[hint.__name__] = _of_dataclass(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    raise TypeError(f"no JSON Schema for {hint!r}")


def field_docstrings(cls: type) -> dict[str, str]:
    """The text under each field of a dataclass, which Python itself does not keep."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    notes: dict[str, str] = {}
    for before, node in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
        ):
            notes[before.target.id] = " ".join(str(node.value.value).split())
    return notes
