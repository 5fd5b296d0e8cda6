"""The rows of the table of measured runs, read from the files of results.

Each kind of file has keys of its own. What an older file lacks reads "not recorded", and what was
not measured, which files hold as null, reads "not measured".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.origin import PACKAGES

NOT_RECORDED = "not recorded"
NOT_MEASURED = "not measured"
DATE_LENGTH = len("2026-11-21")

Data = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One measurement; all texts are ready to be shown."""

    setting: str
    """Model or shape, and what distinguishes this measurement from others of it."""
    mode: str
    """Execution mode, or the part of the job."""
    measured: str
    """The figures with their units."""
    share: str
    """Shares of the machine's matrix rate."""
    limit: str
    """Speeds at which the products alone would take the whole time."""
    card: str
    date: str
    versions: str
    command: str
    file: str
    """Name of the file that the figures come from."""


def rows_of_folder(folder: Path) -> list[Row]:
    """The rows of all files of results: single modes first, then whole jobs, then the rest."""
    found = [
        (order, row)
        for file in sorted(folder.glob("*.json"))
        for order, row in rows_of(file.name, json.loads(file.read_text(encoding="utf-8")))
    ]
    return [row for _, row in sorted(found, key=lambda item: item[0])]


def rows_of(name: str, data: Data) -> Iterator[tuple[int, Row]]:
    """The rows of a file, each with its kind's place in the table.

    Raises:
        ValueError: no kind has the file's keys.
    """
    for order, (key, rows) in enumerate(KINDS.items()):
        if key in data:
            yield from ((order, row) for row in rows(name, data))
            return
    raise ValueError(f"{name} has keys of no known kind: {', '.join(data)}")


# ---------------------------------------------------------------- kinds of files


def _ways(name: str, data: Data) -> Iterator[Row]:
    """Execution modes of one model, slowest first, by `benchmarks.bench`."""
    parts = [
        data.get("setting") or data.get("model") or f"model {NOT_RECORDED}",
        f"batch {data['batch_size']}",
        f"adapters on {_targets(data['lora']['target_modules'])}",
    ]
    setting = ", ".join(parts)
    slowest_first = sorted(data["ways"].items(), key=lambda item: _speed(item[1]))
    for mode, way in slowest_first:
        yield Row(
            setting,
            mode,
            _listed(
                _quantity(way, "training_examples_per_s", "training examples/s"),
                _quantity(way, "training_examples_per_s_with_warm_up", "with warm-up"),
                _quantity(way, "scoring_examples_per_s", "rows/s scored"),
                _gib(way.get("training_peak_bytes"), "in training"),
            ),
            _of_rate(way, lambda speed, share: _percent(share)),
            _of_rate(way, lambda speed, share: _number(speed / share)),
            **_origin(name, data),
        )


def _start(name: str, data: Data) -> Iterator[Row]:
    """Whole jobs with empty and with filled caches, by `benchmarks.start`."""
    for job in data["whole_jobs"]:
        yield _job_row(
            name,
            data,
            data.get("setting", NOT_RECORDED),
            f"whole job, {job['caches']}",
            _quantity(job, "whole_s", "s in all"),
            _quantity(job, "to_first_step_s", "s to the first step"),
            _quantity(job, "training_examples_per_s", "training examples/s"),
        )


def _run(name: str, data: Data) -> Iterator[Row]:
    """One job, by `benchmarks/summary.py`."""
    yield _job_row(
        name,
        data,
        data.get("setting", NOT_RECORDED),
        "job up to its report",
        _quantity(data, "total_s", "s in all"),
        _quantity(data, "training_examples_per_s", "training examples/s"),
        _gib(data.get("resources", {}).get("peak_allocated_bytes"), "at most"),
    )


def _trainings(name: str, data: Data) -> Iterator[Row]:
    """A job with one training and one with several, by `benchmarks.trainings`."""
    setting = data.get("setting", NOT_RECORDED)
    one, several = "one_training_s", "all_s"
    count = 1 + data["further_trainings"]
    steps = _quantity(data, "steps_of_one_s", "s optimizer steps")
    yield _job_row(name, data, setting, "whole job", _quantity(data, one, "s in all"), steps)
    yield _job_row(
        name,
        data,
        setting,
        f"whole job of {count} trainings",
        _quantity(data, several, "s in all"),
        _quantity(data, "a_further_one_s", "s a further one"),
    )


def _groups(name: str, data: Data) -> Iterator[Row]:
    """Whole jobs on one and on several GPUs, by `benchmarks.groups`."""
    for job in data["jobs"]:
        setting = ", ".join(filter(None, (data.get("setting"), job.get("job"), job.get("host"))))
        yield _job_row(
            name,
            {**data, "device": job["gpus"]},
            setting or NOT_RECORDED,
            f"whole job on {_count(len(job['gpus']), 'GPU')}",
            _quantity(job, "whole_s", "s in all"),
            _quantity(job, "steps_of_one_s", "s optimizer steps of a training"),
            _quantity(job.get("scored_rows_per_s", {}), "test", "test rows/s scored"),
        )


def _sharded(name: str, data: Data) -> Iterator[Row]:
    """A model divided between GPUs, by `benchmarks.sharded`."""
    for part in data["parts"]:
        limit = part.get("limit_gib", 0)
        yield _job_row(
            name,
            {**data, "device": part["device"]},
            ", ".join([f"{part['shape']}'s shape", *[f"limit of {limit:g} GiB"] * bool(limit)]),
            part["part"],
            "out of memory" if part.get("out_of_memory") else "",
            _quantity(part, "training_examples_per_s", "training examples/s"),
            *(
                f"{peaks[0]['allocated']:.2f} GiB in training"
                for peaks in [part.get("peaks_gib", {}).get("train")]
                if peaks
            ),
        )


def _large(name: str, data: Data) -> Iterator[Row]:
    """What a large training set costs the host, by `benchmarks.large`."""
    setting = f"{data['rows']:,} training rows"
    for part, key, what in (
        ("subset", "subset", "choosing, checking and writing the rows"),
        ("worker", "read", "reading the rows in the GPU side"),
        ("worker", "encode", "tokenizing them"),
        ("worker", "steps", "packing and logging all steps, without the GPU's work"),
    ):
        peak = data[part].get(f"{key}_peak_mb")
        yield _job_row(
            name,
            data,
            setting,
            what,
            _quantity(data[part], f"{key}_cpu_s", "s CPU time"),
            f"{_number(peak / 1000)} GB resident" if peak else "",
        )


def _forgetting(name: str, data: Data) -> Iterator[Row]:
    """What an adapter forgets: no speed."""
    yield _job_row(name, data, data["model"], "loss on general text", "no speed: see the file")


KINDS: Mapping[str, Callable[[str, Data], Iterator[Row]]] = {
    "ways": _ways,
    "whole_jobs": _start,
    "total_s": _run,
    "one_training_s": _trainings,
    "jobs": _groups,
    "parts": _sharded,
    "subset": _large,
    "adapters": _forgetting,
}
"""A key that only one kind of file has -> its rows, in the table's order."""


# ---------------------------------------------------------------- parts of a row


def _job_row(name: str, data: Data, setting: str, mode: str, *quantities: str) -> Row:
    """A row without a share of the matrix rate, which whole jobs do not record."""
    shares = NOT_RECORDED
    return Row(setting, mode, _listed(*quantities), shares, shares, **_origin(name, data))


def _origin(name: str, data: Data) -> dict[str, str]:
    """Card, date, versions, command and file of all rows of a file."""
    return {
        "card": _card(data),
        "date": data.get("date") or name[:DATE_LENGTH],
        "versions": _versions(data),
        "command": data.get("command") or NOT_RECORDED,
        "file": name,
    }


def _card(data: Data) -> str:
    environment = data.get("environment", {})
    gpus = data.get("device") or [gpu["name"] for gpu in environment.get("gpus", [])]
    if not gpus:
        return str(data.get("machine", NOT_RECORDED))
    if isinstance(gpus, str):
        return str(data.get("cpu", gpus)) if gpus.upper() == "CPU" else gpus
    return ", ".join(
        name if count == 1 else f"{count} × {name}" for name, count in Counter(gpus).items()
    )


def _versions(data: Data) -> str:
    known = data.get("versions") or data.get("environment", {}).get("packages")
    if isinstance(known, str):
        return known
    if not known:
        return NOT_RECORDED
    return ", ".join(f"{name} {known[name]}" for name in PACKAGES if name in known)


def _targets(modules: str | Sequence[str]) -> str:
    """The adapter's linear layers: a group's name, or their own without a common ending."""
    if isinstance(modules, str):
        return modules
    return ", ".join(module.removesuffix("_proj") for module in modules)


def _of_rate(way: Data, shown: Callable[[float, float], str]) -> str:
    """What follows from speed and share of the matrix rate, in training and in scoring."""
    texts = []
    for part in ("training", "scoring"):
        share, speed = way.get(f"share_of_matrix_rate_{part}"), way[f"{part}_examples_per_s"]
        if share and speed:
            texts.append(f"{shown(speed, share)} {part}")
    return _listed(*texts) or NOT_MEASURED


def _quantity(data: Data, key: str, unit: str) -> str:
    """A figure with its unit; empty where there is none."""
    value = data.get(key)
    return f"{_number(value)} {unit}" if value is not None else ""


def _gib(size_bytes: int | None, when: str) -> str:
    return f"{size_bytes / 2**30:.2f} GiB {when}" if size_bytes else ""


def _listed(*texts: str) -> str:
    return "; ".join(filter(None, texts))


def _number(value: float) -> str:
    """Two digits or more, and none that the measurement cannot hold: 4.7, 18.8, 792, 3,219."""
    return f"{value:,.0f}" if value >= 200 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %") if share < 0.1 else f"{share:.0%}".replace("%", " %")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + "s" * (number != 1)


def _speed(way: Data) -> float:
    speed: float = way["training_examples_per_s"]
    return speed
