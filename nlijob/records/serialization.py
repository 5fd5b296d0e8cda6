"""Records to and from JSON.

Numbers that JSON cannot represent are refused; None means "not measured".
"""

from __future__ import annotations

import dataclasses
import json
import math
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

from nlijob.records.older import upgraded
from nlijob.typed import build

T = TypeVar("T")

CHECKSUM = "crc32"
"""Last key of a line of a log."""


@runtime_checkable
class Checked(Protocol):
    """A record whose values can contradict each other."""

    def faults(self) -> Iterable[str]:
        """What is wrong with the values, beyond their types."""
        ...


class Log(NamedTuple, Generic[T]):
    """The records of a log, and how many of its lines cannot be read."""

    records: list[T]
    unreadable: int


def to_json(record: Any) -> Any:
    """A record as plain JSON values. Raises ValueError on a number that JSON cannot represent."""
    value = dataclasses.asdict(record)
    _refuse_nonfinite(value, type(record).__name__)
    return value


def from_json(cls: type[T], value: object) -> T:
    """A record from plain JSON values, also of an older format.

    Raises ValueError that names every key that is wrong.
    """
    faults: list[str] = []
    try:
        record = build(cls, upgraded(cls.__name__, value), "", faults)
    except RecursionError as error:
        raise ValueError(f"not a {cls.__name__}: nested too deeply") from error
    if record is not None and _is_checked(cls):  # type: ignore[arg-type]
        faults += cast("Checked", record).faults()
    if faults or record is None:
        raise ValueError(f"not a {cls.__name__}: " + "; ".join(faults))
    return record


@lru_cache
def _is_checked(cls: type) -> bool:
    """Whether the records of a class are `Checked`; to ask each record takes long."""
    return issubclass(cls, Checked)


def parse(text: str | bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises ValueError where it is not one."""
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read(cls: type[T], path: Path) -> T:
    """The record in a JSON file. Raises OSError, or ValueError if it holds no such record."""
    return from_json(cls, parse(path.read_bytes()))


def read_lines(cls: type[T], path: Path) -> Iterator[T]:
    """The records of a JSON Lines file; a last line cut short by a crash is skipped."""
    with path.open("rb") as lines:  # a line may be cut within a character
        for line in lines:
            if line.endswith(b"\n"):
                yield from_json(cls, _parse_line(line))


def read_all(cls: type[T], path: Path) -> list[T]:
    """The records of a JSON Lines file; none where there is no such file."""
    return list(read_lines(cls, path)) if path.exists() else []


def read_log(cls: type[T], path: Path) -> Log[T]:
    """The readable records of a log that is appended to, in which lines may be damaged.

    A line whose checksum differs is damaged; earlier versions wrote none. A last line cut short
    by a crash is skipped and not counted. A log that cannot be read at all counts as one line; one
    that does not exist is empty.
    """
    found: list[T] = []
    unreadable = 0
    try:
        with path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    continue
                try:
                    found.append(from_json(cls, _parse_line(line)))
                except ValueError:
                    unreadable += 1
    except FileNotFoundError:
        pass
    except OSError:
        unreadable += 1
    return Log(found, unreadable)


def _parse_line(line: bytes) -> Any:
    """The value of a line, without its checksum. Raises ValueError if that differs."""
    value = parse(line)
    written = value.pop(CHECKSUM, None) if isinstance(value, dict) else None
    if written is not None and written != _checksum(json.dumps(value, ensure_ascii=False)):
        raise ValueError("its checksum differs")
    return value


def dump(record: Any) -> str:
    """A record as indented JSON text. Raises ValueError as `to_json` does."""
    return _encoded(record, _INDENTED) + "\n"


def dump_lines(records: Iterable[Any]) -> str:
    """Records as JSON Lines."""
    return "".join(dump_line(record) for record in records)


def dump_line(record: Any) -> str:
    """One record as a JSON line. Raises ValueError as `to_json` does."""
    return _encoded(record, _IN_A_LINE) + "\n"


def _values(record: Any) -> dict[str, Any]:
    """The values of a record by their keys, for the encoder; it asks for those within them too.

    A copy by `dataclasses.asdict` takes five times as long, which adds up in files of many rows.
    """
    names = _names(type(record))  # type: ignore[arg-type]
    return {name: getattr(record, name) for name in names}


@lru_cache
def _names(cls: type) -> tuple[str, ...]:
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"a value of type {cls.__name__} has no form in JSON")
    return tuple(field.name for field in dataclasses.fields(cls))


_IN_A_LINE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_values)
_INDENTED = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_values, indent=1)


def _encoded(record: Any, encoder: json.JSONEncoder) -> str:
    try:
        return encoder.encode(record)
    except ValueError:
        to_json(record)  # its message names the key
        raise


def dump_log_line(record: Any) -> str:
    """One record as a JSON line with its checksum, for a log, whose changes no marker shows."""
    text = dump_line(record).rstrip("\n")
    return f'{text[:-1]}, "{CHECKSUM}": "{_checksum(text)}"}}\n'


def _checksum(text: str) -> str:
    """CRC-32 (RFC 1952) of a text in UTF-8, as eight hexadecimal digits."""
    return f"{zlib.crc32(text.encode('utf-8')):08x}"


def _refuse_nonfinite(value: Any, path: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path} is {value}; a figure that was not measured is None")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_nonfinite(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _refuse_nonfinite(item, f"{path}[{i}]")
