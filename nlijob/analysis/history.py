"""Scheduled runs over time: which are comparable, and whether the newest one is worse.

A series holds runs with the same configuration and the same test rows, so that its trend reflects
nothing but the runs. Each run is reduced to what the page needs as soon as it is read, so that
hundreds of runs take little memory.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nlijob.analysis.clustered import paired_difference
from nlijob.analysis.figures import run_figures, settings
from nlijob.analysis.run_figures import read_run_figures
from nlijob.analysis.runs import NoOutcomeError, read_outcome
from nlijob.analysis.statistics import holm
from nlijob.records.figures import Figures, RunFigures
from nlijob.records.intervals import PairedDifference
from nlijob.records.job import RunRecord
from nlijob.records.outcome import SIGNIFICANT
from nlijob.records.serialization import read
from nlijob.run_folders import FoundRuns, find_runs
from nlijob.rundir import RunDir, moment

KIND = "nlijob index"
IRRELEVANT = (
    "description",
    "report.",
    "eval.",
    "transfer",
    "forgetting.",
    "machine.",
    "model.device",
    "model.requires_gpu",
    "train.seed",
    "train.keep",
    "train.micro_batch_size",
    "train.gradient_checkpointing",
    "train.speed",
    "train.checkpoint_every_s",
    "transfer",
)
"""Settings, or prefixes of settings, that may differ within a series: they affect neither training
nor the questions asked, except by chance."""
MEDIAN_OF = 3
"""With at least this many earlier runs, the newest is also compared with their median."""

State = Literal["finished", "unfinished", "other version", "damaged"]


@dataclass(frozen=True)
class Entry:
    """A folder with a run; only a finished one has `figures`."""

    folder: str
    """Path of the folder below the folder of runs, with forward slashes."""
    state: State
    reason: str
    """Why there are no figures; "" where there are."""
    started: datetime.datetime | None
    """When the run was first started; None where unknown."""
    figures: Figures | None
    has_report: bool
    has_results: bool = False
    """Whether there is a results.json."""
    series: str = ""
    """Identifier of the series, shared by all comparable runs; "" without figures."""
    settings: Mapping[str, Any] | None = None
    train_rows_sha256: str = ""
    packages: Mapping[str, str] | None = None
    wrong: Sequence[int] = ()
    """Row numbers of the test rows that the tuned model labels incorrectly."""
    rows: Sequence[int] = ()
    """Row numbers of all test rows."""
    premises: Sequence[int] = ()
    """Number of the premise of each test row; empty where each row is a unit."""


@dataclass(frozen=True)
class Check:
    """The newest run of a series compared with an earlier one on the same test rows."""

    against: Literal["the run before", "the median of the earlier runs"]
    folder: str
    accuracy: float
    difference: PairedDifference
    """Accuracy of the newest run minus that of the earlier one."""
    p: float
    """p of McNemar's test, Holm-adjusted where the newest run is compared with two."""

    @property
    def is_below(self) -> bool:
        """Whether the newest run is significantly less accurate."""
        return self.p < SIGNIFICANT and self.difference.difference < 0


@dataclass(frozen=True)
class Series:
    """Comparable runs, the oldest first."""

    runs: tuple[Entry, ...]
    own_settings: Mapping[str, Any]
    """The settings that differ from another series of the same model and data set."""
    checks: tuple[Check, ...]

    @property
    def newest(self) -> Entry:
        """The most recently started run."""
        return self.runs[-1]

    @property
    def is_below(self) -> bool:
        """Whether the newest run is significantly less accurate than an earlier one."""
        return any(check.is_below for check in self.checks)

    @property
    def varying(self) -> tuple[str, ...]:
        """What differs between the runs, in words."""
        own = self.runs
        facts: dict[str, set[str]] = {
            "training rows": {run.train_rows_sha256 for run in own},
            "seed": {repr((run.settings or {}).get("train.seed")) for run in own},
            "number of trainings": {repr(run.figures and run.figures.trainings) for run in own},
            "machine": {repr(run.figures and run.figures.devices) for run in own},
            "package versions": {repr(run.packages) for run in own},
            "version of nlijob": {repr(run.figures and run.figures.nlijob_version) for run in own},
        }
        return tuple(name for name, values in facts.items() if len(values) > 1)


@dataclass(frozen=True)
class IndexedRun:
    """A run in index.json."""

    folder: str
    state: State
    reason: str
    started_at: str | None
    report: bool
    series: str
    figures: Figures | None


@dataclass(frozen=True)
class IndexedSeries:
    """A series in index.json; its runs are folder names, the oldest first."""

    series: str
    runs: tuple[str, ...]
    own_settings: Mapping[str, Any]
    varying: tuple[str, ...]
    checks: tuple[Check, ...]
    newest_is_below: bool


@dataclass(frozen=True)
class Index:
    """index.json: all runs, the newest first, and their series."""

    kind: str
    runs: tuple[IndexedRun, ...]
    series: tuple[IndexedSeries, ...]


@dataclass(frozen=True)
class History:
    """All runs, the newest first, and their series, the latest first."""

    entries: tuple[Entry, ...]
    series: tuple[Series, ...]


def read_entries(runs_dir: Path) -> tuple[list[Entry], FoundRuns]:
    """Every run below the folder, and what else was found there.

    Of a finished run, figures.json is read and the files that it must agree with; of others
    results.json, config.json and the markers. Raises OSError where the folder cannot be listed.
    """
    found = find_runs(runs_dir)
    entries = [read_entry(runs_dir / name, name) for name in found.names]
    unreadable = [
        Entry(name, "damaged", f"the folder cannot be read: {why}", None, None, has_report=False)
        for name, why in found.unreadable
    ]
    return entries + unreadable, found


def read_entry(folder: Path, name: str) -> Entry:
    """The run in a folder that holds one, under this name."""
    run = RunDir(folder)
    has_report = run.report.is_file()
    known = read_run_figures(run)
    if known is not None:
        return entry_of(name, known, has_report)
    try:
        results = read_outcome(run)
        if moment(results.run.created_at) is None:
            raise NoOutcomeError("damaged", "results.json does not say when the run was started")
        dropped = len(results.prompt.dropped.get("test", ()))
        if len(results.manifest.splits["test"].indices) - dropped != results.tuned.rows:
            raise NoOutcomeError("damaged", "results.json contradicts itself about the test rows")
    except NoOutcomeError as error:
        asked = _asked(run)
        return Entry(
            folder=name,
            state=error.state,
            reason=error.reason,
            started=moment(asked.created_at) if asked else None,
            figures=None,
            has_report=has_report,
            has_results=run.results.is_file(),
        )
    return entry_of(name, run_figures(results), has_report)


def entry_of(folder: str, known: RunFigures, has_report: bool = True) -> Entry:
    """A finished run, by its figures."""
    figures = known.figures
    flat = settings(known.config)
    alike = {key: value for key, value in flat.items() if not key.startswith(IRRELEVANT)}
    content = [alike, figures.dataset, figures.test_rows_sha256, known.rows]
    text = json.dumps(content, sort_keys=True)
    return Entry(
        folder=folder,
        state="finished",
        reason="",
        started=moment(figures.created_at),
        figures=figures,
        has_report=has_report,
        has_results=True,
        series=hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16],
        settings=flat,
        train_rows_sha256=known.train_rows_sha256,
        packages=known.packages,
        wrong=array("q", known.wrong),
        rows=array("q", known.rows),
        premises=array("q", known.premises),
    )


def build_history(entries: Iterable[Entry]) -> History:
    """The runs in order of time and in series, with the newest run of each series checked."""
    ordered = sorted(entries, key=_when, reverse=True)
    groups: dict[str, list[Entry]] = {}
    for entry in ordered:
        if entry.figures is not None:
            groups.setdefault(entry.series, []).append(entry)
    firsts = [group[0] for group in groups.values()]
    return History(
        entries=tuple(ordered),
        series=tuple(
            Series(
                runs=tuple(reversed(group)),
                own_settings=_own_settings(group[0], firsts),
                checks=check_newest(tuple(reversed(group))),
            )
            for group in groups.values()
        ),
    )


def index(history: History) -> Index:
    """The history in the form of index.json."""
    return Index(
        kind=KIND,
        runs=tuple(
            IndexedRun(
                folder=entry.folder,
                state=entry.state,
                reason=entry.reason,
                started_at=entry.started.isoformat() if entry.started else None,
                report=entry.has_report,
                series=entry.series,
                figures=entry.figures,
            )
            for entry in history.entries
        ),
        series=tuple(
            IndexedSeries(
                series=series.newest.series,
                runs=tuple(run.folder for run in series.runs),
                own_settings=series.own_settings,
                varying=series.varying,
                checks=series.checks,
                newest_is_below=series.is_below,
            )
            for series in history.series
        ),
    )


def check_newest(runs: Sequence[Entry]) -> tuple[Check, ...]:
    """Compare the last run with the one before and, from four runs on, with the median run.

    The median run is the earlier run with the median accuracy: the lower of two, the later of
    equals.
    """
    *earlier, newest = runs
    if not earlier:
        return ()
    chosen: dict[str, tuple[Any, Entry]] = {
        earlier[-1].folder: ("the run before", earlier[-1]),
    }
    if len(earlier) >= MEDIAN_OF:
        ranked = sorted(enumerate(earlier), key=lambda item: (_accuracy(item[1]), item[0]))
        middle = _accuracy(ranked[(len(ranked) - 1) // 2][1])
        median = [entry for _, entry in ranked if _accuracy(entry) == middle][-1]
        chosen.setdefault(median.folder, ("the median of the earlier runs", median))
    found = [(name, entry, _difference(newest, entry)) for name, entry in chosen.values()]
    adjusted = holm([difference.mcnemar_p for _, _, difference in found])
    return tuple(
        Check(name, entry.folder, _accuracy(entry), difference, p)
        for (name, entry, difference), p in zip(found, adjusted, strict=True)
    )


# ---------------------------------------------------------------- detail


def _difference(newest: Entry, earlier: Entry) -> PairedDifference:
    """Difference in accuracy of two runs of a series, from the rows that each has wrong."""
    new, old = set(newest.wrong), set(earlier.wrong)
    known = newest.premises or earlier.premises  # an older run does not know its premises
    premises = known if len(known) == len(newest.rows) else newest.rows
    return paired_difference(
        [row not in new for row in newest.rows], [row not in old for row in newest.rows], premises
    )


def _accuracy(entry: Entry) -> float:
    return entry.figures.tuned_accuracy if entry.figures else 0.0


def _own_settings(entry: Entry, firsts: Iterable[Entry]) -> dict[str, Any]:
    """The settings that differ from another series of the same model and data set."""
    own = entry.settings or {}
    of_same = [other.settings or {} for other in firsts if _about(other) == _about(entry)]
    return {
        key: value
        for key, value in own.items()
        if not key.startswith(IRRELEVANT) and any(other.get(key) != value for other in of_same)
    }


def _about(entry: Entry) -> tuple[str, str]:
    return (entry.figures.model, entry.figures.dataset) if entry.figures else ("", "")


def _when(entry: Entry) -> tuple[bool, float, str]:
    started = entry.started
    return started is not None, started.timestamp() if started else 0.0, entry.folder


def _asked(run: RunDir) -> RunRecord | None:
    try:
        return read(RunRecord, run.config)
    except (OSError, ValueError):
        return None
