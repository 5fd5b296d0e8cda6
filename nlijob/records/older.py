"""Reads what earlier versions wrote: JSON values of formats 2 and 3 as format 4 has them.

Format 3 gave timings their kind, epoch and split as fields (format 2 only named the part) and
made warnings and missed gates findings with a code (format 2 had the sentence alone).
Format 4 gave markers the hashes of their files and the inputs of their stage; the markers of older
formats keep their format version, as a job of this version does their stages again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

OLDER = (2, 3)
NEWER = 4
READABLE = (*OLDER, NEWER)

EPOCH_PART = re.compile(r"epoch (?P<epoch>\d+)(?: (?P<what>.+))?")
SPLITS = ("train", "validation", "test")

Json = Mapping[str, Any]


def upgraded(record: str, value: object) -> object:
    """The JSON value of a record (named by its class) as the present format has it.

    Whatever does not have the older format's shape comes back unchanged.
    """
    upgrade = _UPGRADES.get(record)
    return upgrade(value) if upgrade and isinstance(value, Mapping) else value


def _timing(value: Json) -> Json:
    part = value.get("part")
    if "kind" in value or not isinstance(part, str):
        return value
    return {**value, **part_fields(part)}


def _run(value: Json) -> Json:
    return {**value, "format_version": NEWER} if _is_older(value) else value


def _results(value: Json) -> Json:
    if not _is_older(value):
        return value
    new = {**value, "format_version": NEWER}
    _replace(new, "run", lambda run: upgraded("RunRecord", run))
    _replace(new, "warnings", lambda warnings: _each(warnings, _finding))
    _replace(new, "gates", _gates)
    _replace(new, "stages", lambda stages: _each(stages, _stage_time))
    return new


def _marker(value: Json) -> Json:
    sizes = value.get("sizes")
    if not _is_older(value) or not isinstance(sizes, Mapping):
        return value
    files = {name: {"size_bytes": size, "sha256": None} for name, size in sizes.items()}
    return {**{key: one for key, one in value.items() if key != "sizes"}, "files": files}


def _gates(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    new = {**value}
    _replace(new, "failures", lambda failures: _each(failures, _finding))
    return new


def _stage_time(value: object) -> object:
    if not isinstance(value, Mapping) or not isinstance(value.get("parts"), Mapping):
        return value
    if "timed_parts" in value:
        return value
    timed = [
        {"name": name, **part_fields(name), "duration_s": seconds}
        for name, seconds in value["parts"].items()
    ]
    return {**value, "timed_parts": timed}


def _finding(value: object) -> object:
    return {"code": "", "figures": {}, "text": value} if isinstance(value, str) else value


def part_fields(name: str) -> dict[str, Any]:
    """Kind, epoch and split of a part that format 2 only named."""
    if not name:
        return {"kind": "stage", "epoch": None, "split": None}
    if name in SPLITS:
        return {"kind": "scoring", "epoch": None, "split": name}
    found = EPOCH_PART.fullmatch(name)
    if found is None:
        return {"kind": "other", "epoch": None, "split": None}
    epoch, what = int(found["epoch"]), found["what"]
    if what is None:
        return {"kind": "optimizer steps", "epoch": epoch, "split": "train"}
    if what == "checkpoint":
        return {"kind": "checkpoint", "epoch": epoch, "split": None}
    return {"kind": "scoring", "epoch": epoch, "split": what if what in SPLITS else None}


def _is_older(value: Json) -> bool:
    return value.get("format_version") in OLDER


def _replace(value: dict[str, Any], key: str, upgrade: Callable[[Any], object]) -> None:
    if key in value:
        value[key] = upgrade(value[key])


def _each(value: object, upgrade: Callable[[object], object]) -> object:
    return [upgrade(item) for item in value] if isinstance(value, list | tuple) else value


_UPGRADES: dict[str, Callable[[Json], Json]] = {
    "Timing": _timing,
    "RunRecord": _run,
    "Marker": _marker,
    "Results": _results,
}
