"""The runs below a folder at a glance: how far each is, and what came of it.

Little is read of each run, and no library for figures is imported, as long as the runs have a
figures.json.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from nlijob import records
from nlijob.analysis.run_figures import read_run_figures
from nlijob.analysis.wording import percent
from nlijob.printable import printable
from nlijob.records.figures import RunFigures
from nlijob.records.job import RunRecord
from nlijob.run_folders import find_runs
from nlijob.rundir import RunDir, moment
from nlijob.trials import steps_of

State = Literal[
    "done", "gate not reached", "running", "stopped", "failed", "other version", "damaged"
]
VERDICTS = {"better": "better", "worse": "worse", "unclear": "no clear change"}
"""What the page's verdict says, in a few words, by its tone."""
HEADS = ("run", "state", "verdict", "accuracy", "started (UTC)")
GAP = "  "
LEAST_NAME = 12
"""A name is not made shorter than this to fit a terminal."""
ENDING_BYTES = 65_536
"""How much of the end of a log is read for how the last attempt ended."""


@dataclass(frozen=True)
class ListedRun:
    """A run in the list."""

    name: str
    """Path of its folder below the folder that is listed."""
    state: State
    stage: str = ""
    """The first stage that is not complete; "" where all are, or where it is not known."""
    reason: str = ""
    """Why it has no figures, as far as that is known."""
    verdict: str = ""
    """What tuning brought, in a few words; "" without figures."""
    accuracy_before: float | None = None
    """Share of test rows that the base model labels correctly (0 to 1)."""
    accuracy_after: float | None = None
    """The same of the tuned model; with several trainings, their mean."""
    started_at: str | None = None
    """When it was first started, in ISO 8601 and UTC."""


def list_runs(root: Path) -> list[ListedRun]:
    """The runs below a folder, the newest first. Raises OSError where it cannot be listed."""
    found = find_runs(root)
    locked = _locked_files()
    runs = [_listed(name, RunDir(root / name), locked) for name in found.names]
    runs += [
        ListedRun(name, "damaged", reason=f"the folder cannot be read: {why}")
        for name, why in found.unreadable
    ]
    return sorted(runs, key=lambda run: (run.started_at or "", run.name), reverse=True)


def table(runs: Sequence[ListedRun], width: int | None) -> list[str]:
    """The list as lines of text in columns; with a width, names are shortened to fit it."""
    rows = [HEADS, *(_cells(run) for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    if width is not None:
        others = sum(widths[1:]) + len(GAP) * (len(HEADS) - 1)
        widths[0] = min(widths[0], max(LEAST_NAME, width - others))
    return [
        GAP.join(
            (_shortened(cell, size) if column == 0 else cell).ljust(size)
            for column, (cell, size) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


# ---------------------------------------------------------------- one run


def _listed(name: str, run: RunDir, locked: frozenset[tuple[int, int]]) -> ListedRun:
    asked = _asked(run)
    begun = moment(asked.created_at) if asked else None
    marked = {*run.marked()}
    unfinished = ListedRun(
        name,
        "stopped",
        stage=_next_stage(asked, marked),
        started_at=begun.isoformat() if begun else None,
    )
    if _state_of(run.root / ".lock") in locked:
        return replace(unfinished, state="running")
    if known := read_run_figures(run):
        return _finished(name, known)
    if asked and "report" not in marked:
        failure = _failure(run)
        return replace(unfinished, state="failed" if failure else "stopped", reason=failure)
    return _by_its_results(run, unfinished)


def _finished(name: str, known: RunFigures) -> ListedRun:
    figures = known.figures
    started = moment(figures.created_at)
    return ListedRun(
        name=name,
        state="gate not reached" if figures.gates is False else "done",
        verdict=VERDICTS.get(known.tone, known.tone),
        accuracy_before=figures.base_accuracy,
        accuracy_after=figures.expected_accuracy,
        started_at=started.isoformat() if started else None,
    )


def _by_its_results(run: RunDir, unfinished: ListedRun) -> ListedRun:
    """A run that has no valid figures.json, such as one of an earlier version."""
    from nlijob.analysis.figures import run_figures
    from nlijob.analysis.runs import NoOutcomeError, read_outcome
    from nlijob.report.view.summary import summary_section

    try:
        results = read_outcome(run)
    except NoOutcomeError as error:
        state: State = "stopped" if error.state == "unfinished" else error.state
        return replace(unfinished, state=state, reason=error.reason)
    known = replace(run_figures(results), tone=summary_section(results).tone)
    return _finished(unfinished.name, known)


def _asked(run: RunDir) -> RunRecord | None:
    try:
        return records.read(RunRecord, run.config)
    except (OSError, ValueError):
        return None


def _next_stage(asked: RunRecord | None, marked: Container[str]) -> str:
    """The first stage that has no marker; "" if all have one, or what was asked is not known."""
    steps = steps_of(asked.config) if asked else ()
    return next((step.stage.name for step in steps if step.key not in marked), "")


def _failure(run: RunDir) -> str:
    """The error with which the last attempt ended; "" if it was stopped or killed."""
    try:
        with run.console_log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - ENDING_BYTES))
            lines = log.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    begun = max((at for at, line in enumerate(lines) if line.startswith("--- ")), default=0)
    errors = [line for line in lines[begun:] if line.startswith("error: ")]
    message = errors[-1].removeprefix("error: ") if errors else ""
    return "" if message.startswith("stopped") else message


def _locked_files() -> frozenset[tuple[int, int]]:
    """Device and inode of every file that a process of this machine has locked.

    To try a lock would keep a job that begins at this moment from it. Empty where the system does
    not tell.
    """
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return frozenset()
    found = set()
    for line in lines:
        fields = line.split()
        if len(fields) < 6 or fields[1] != "FLOCK":  # a waiting process has an arrow there
            continue
        major, minor, inode = fields[5].split(":")
        found.add((os.makedev(int(major, 16), int(minor, 16)), int(inode)))
    return frozenset(found)


def _state_of(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


# ---------------------------------------------------------------- text


def _cells(run: ListedRun) -> tuple[str, ...]:
    state = f"{run.state} at {run.stage}" if run.stage else run.state
    accuracy = ""
    if run.accuracy_before is not None and run.accuracy_after is not None:
        before = percent(run.accuracy_before).removesuffix(" %")
        accuracy = f"{before} → {percent(run.accuracy_after)}"
    started = (run.started_at or "not known")[:16].replace("T", " ")
    return printable(run.name), state, run.verdict, accuracy, started


def _shortened(name: str, size: int) -> str:
    """A name with its middle left out, as names often begin alike."""
    if len(name) <= size:
        return name
    end = size // 2
    return f"{name[: size - end - 1]}…{name[-end:]}"
