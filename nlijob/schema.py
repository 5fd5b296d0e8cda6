"""The JSON Schema (draft 2020-12) of a record, generated from dataclasses and docstrings."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from typing import Any, Literal

from nlijob.records.job import FORMAT_VERSION
from nlijob.records.outcome import Results

DRAFT = "https://json-schema.org/draft/2020-12/schema"
PLAIN = {int: "integer", float: "number", str: "string", bool: "boolean"}

Schema = dict[str, Any]


def results_schema() -> Schema:
    """The schema of results.json."""
    return record_schema(Results)


def record_schema(cls: type) -> Schema:
    """The schema of a record written as JSON. Raises TypeError on an unsupported type."""
    definitions: dict[str, Schema] = {}
    schema = _dataclass_schema(cls, definitions)
    if "format_version" in schema["properties"]:
        schema["properties"]["format_version"]["const"] = FORMAT_VERSION
    return {"$schema": DRAFT, "title": cls.__name__, **schema, "$defs": definitions}


def _dataclass_schema(cls: type, definitions: dict[str, Schema]) -> Schema:
    hints = typing.get_type_hints(cls)
    notes = field_docstrings(cls)
    properties = {}
    for field in dataclasses.fields(cls):
        schema = _type_schema(hints[field.name], definitions)
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


def _type_schema(hint: Any, definitions: dict[str, Schema]) -> Schema:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in PLAIN:
        return {"type": PLAIN[hint]}
    if hint is type(None):
        return {"type": "null"}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_type_schema(argument, definitions) for argument in arguments]}
    if origin is tuple and arguments[1:] == (...,):
        return {"type": "array", "items": _type_schema(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type_schema(arguments[1], definitions)}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}  # placeholder that ends a recursion
            definitions[hint.__name__] = _dataclass_schema(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    raise TypeError(f"no JSON Schema for {hint!r}")


def field_docstrings(cls: type) -> dict[str, str]:
    """Field -> the docstring below it, read from the source because Python discards it."""
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
