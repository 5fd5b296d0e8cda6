"""The runs of a schedule over time: which can be compared, and whether the newest fell behind.

A series is made of runs of one configuration scored on the very same test rows, so that its trend
is about nothing but the runs. Each run is boiled down to what the page needs as soon as it is
read: hundreds of runs take little memory.
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

from nlijob.analysis.figures import Figures, figures, settings
from nlijob.analysis.runs import NoOutcomeError, holds_a_run, read_outcome, wrong_rows
from nlijob.analysis.statistics import holm, paired_difference
from nlijob.records import SIGNIFICANT, PairedDifference, Results, RunRecord, read
from nlijob.rundir import RunDir

KIND = "nlijob index"
NO_MATTER = (
    "description",
    "report.",
    "eval.",
    "model.device",
    "model.requires_gpu",
    "train.seed",
    "train.micro_batch_size",
    "train.gradient_checkpointing",
    "train.speed",
)
"""Settings, or beginnings of them, in which the runs of a series may differ: they change neither
what is learned nor what is asked, beyond chance."""
MEDIAN_OF = 3
"""Earlier runs from which a median says more than the run before."""

State = Literal["finished", "unfinished", "other version", "damaged"]


@dataclass(frozen=True)
class Entry:
    """A folder with a run in it; `figures` where it is finished."""

    folder: str
    """Name below the folder of runs."""
    state: State
    reason: str
    """Why there are no figures, or what to mind about them; "" for nothing."""
    started: datetime.datetime | None
    """When the run was first started; None where nothing says so."""
    figures: Figures | None
    has_report: bool
    series: str = ""
    """What it shares with the runs that it can be compared to; "" without figures."""
    settings: Mapping[str, Any] | None = None
    train_rows_sha256: str = ""
    packages: Mapping[str, str] | None = None
    wrong: Sequence[int] = ()
    """Test rows that the tuned model has wrong."""


@dataclass(frozen=True)
class Check:
    """The newest run of a series held against an earlier one, on the same test rows."""

    against: Literal["the run before", "the median of the earlier runs"]
    folder: str
    accuracy: float
    difference: PairedDifference
    """The newest over the earlier one."""
    p: float
    """McNemar's; by Holm's rule where the newest is held against two."""

    @property
    def is_below(self) -> bool:
        """Whether the newest is right on fewer rows, and on more fewer than chance explains."""
        return self.p < SIGNIFICANT and self.difference.difference < 0


@dataclass(frozen=True)
class Series:
    """Runs that can be compared, the oldest first."""

    runs: tuple[Entry, ...]
    own_settings: Mapping[str, Any]
    """The settings in which it is unlike another series of the same model and data set."""
    checks: tuple[Check, ...]

    @property
    def newest(self) -> Entry:
        """The run that was started last."""
        return self.runs[-1]

    @property
    def is_below(self) -> bool:
        """Whether the newest run is distinguishably below an earlier one."""
        return any(check.is_below for check in self.checks)

    @property
    def varying(self) -> tuple[str, ...]:
        """What is not the same in all its runs, in words."""
        own = self.runs
        facts: dict[str, set[str]] = {
            "training rows": {run.train_rows_sha256 for run in own},
            "seed": {repr((run.settings or {}).get("train.seed")) for run in own},
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
    """A series in index.json; its runs by folder, the oldest first."""

    series: str
    runs: tuple[str, ...]
    own_settings: Mapping[str, Any]
    varying: tuple[str, ...]
    checks: tuple[Check, ...]
    newest_is_below: bool


@dataclass(frozen=True)
class Index:
    """index.json: every run, the newest first, and the series they make."""

    kind: str
    runs: tuple[IndexedRun, ...]
    series: tuple[IndexedSeries, ...]


@dataclass(frozen=True)
class History:
    """All runs, the newest first, and the series they make, the latest first."""

    entries: tuple[Entry, ...]
    series: tuple[Series, ...]


def read_entries(runs_dir: Path) -> tuple[list[Entry], int]:
    """Every run right below the folder, and how many folders hold none.

    Reads results.json, and where there is none what else tells of the run. Raises OSError where
    the folder cannot be listed.
    """
    folders = sorted(path for path in runs_dir.iterdir() if path.is_dir())
    # A link such as "latest" to a run beside it is no other run.
    folders = [path for path in folders if not _leads_to(path, runs_dir)]
    entries = [entry for path in folders if (entry := read_entry(path)) is not None]
    return entries, len(folders) - len(entries)


def read_entry(folder: Path) -> Entry | None:
    """What a folder tells of its run; None where there is no run in it."""
    try:
        if not holds_a_run(folder):
            return None
        run = RunDir(folder)
        has_report = run.report.is_file()
    except OSError as error:
        reason = f"the folder cannot be read: {error.strerror}"
        return Entry(folder.name, "damaged", reason, None, None, has_report=False)
    try:
        results = read_outcome(run)
        started = _moment(results.run.created_at)
        if started is None:
            raise NoOutcomeError("damaged", "results.json says no time that the run was started")
    except NoOutcomeError as error:
        asked = _asked(run)
        return Entry(
            folder=folder.name,
            state=error.state,
            reason=error.reason,
            started=_moment(asked.created_at) if asked else None,
            figures=None,
            has_report=has_report,
        )
    return summary(folder.name, results, _begun_again(run, results), has_report)


def summary(folder: str, results: Results, note: str = "", has_report: bool = True) -> Entry:
    """What of an outcome the history keeps."""
    test = results.manifest.splits["test"]
    train = results.manifest.splits.get("train")
    flat = settings(results.run.config)
    alike = {key: value for key, value in flat.items() if not key.startswith(NO_MATTER)}
    content = [alike, results.manifest.dataset, test.rows_sha256, test.indices]
    text = json.dumps(content, sort_keys=True)
    return Entry(
        folder=folder,
        state="finished",
        reason=note,
        started=_moment(results.run.created_at),
        figures=figures(results),
        has_report=has_report,
        series=hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16],
        settings=flat,
        train_rows_sha256=train.rows_sha256 if train else "",
        packages=results.environment.packages,
        wrong=array("q", wrong_rows(results)),
    )


def build_history(entries: Iterable[Entry]) -> History:
    """The runs in order of time, in series, each series' newest run checked."""
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
    """The history as index.json holds it."""
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
    """The last of a series' runs against the one before and, from four runs on, the median one.

    The median run is the earlier run of median accuracy (of two, the lower; of equals, the later).
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
    found = [(name, entry, _over(newest, entry)) for name, entry in chosen.values()]
    adjusted = holm([difference.mcnemar_p for _, _, difference in found])
    return tuple(
        Check(name, entry.folder, _accuracy(entry), difference, p)
        for (name, entry, difference), p in zip(found, adjusted, strict=True)
    )


# ---------------------------------------------------------------- detail


def _over(newest: Entry, earlier: Entry) -> PairedDifference:
    """Both were scored on the same rows: the rows that one has wrong and the other right."""
    new, old = set(newest.wrong), set(earlier.wrong)
    assert newest.figures is not None  # a series has figures
    return paired_difference(len(old - new), len(new - old), newest.figures.test_rows)


def _accuracy(entry: Entry) -> float:
    return entry.figures.tuned_accuracy if entry.figures else 0.0


def _own_settings(entry: Entry, firsts: Iterable[Entry]) -> dict[str, Any]:
    """The run's settings that another series of its model and data set has otherwise."""
    own = entry.settings or {}
    of_same = [other.settings or {} for other in firsts if _about(other) == _about(entry)]
    return {
        key: value
        for key, value in own.items()
        if not key.startswith(NO_MATTER) and any(other.get(key) != value for other in of_same)
    }


def _about(entry: Entry) -> tuple[str, str]:
    return (entry.figures.model, entry.figures.dataset) if entry.figures else ("", "")


def _when(entry: Entry) -> tuple[bool, float, str]:
    moment = entry.started
    return moment is not None, moment.timestamp() if moment else 0.0, entry.folder


def _moment(text: str) -> datetime.datetime | None:
    """A time as it stands in a record, in UTC; None where it is none."""
    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return moment.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return None


def _asked(run: RunDir) -> RunRecord | None:
    try:
        return read(RunRecord, run.config)
    except (OSError, ValueError, RecursionError):
        return None


def _begun_again(run: RunDir, results: Results) -> str:
    """Whether the folder was begun again for something else since it was finished."""
    asked = _asked(run)
    if asked is None or asked.config == results.run.config:
        return ""
    return "begun again with another configuration since; the figures are the earlier one's"


def _leads_to(path: Path, folder: Path) -> bool:
    return path.is_symlink() and path.resolve().parent == folder.resolve()
