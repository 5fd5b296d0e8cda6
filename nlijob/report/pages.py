"""The pages about several runs, `compare` and `index`, each with its JSON beside it."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from nlijob import __version__, records
from nlijob.analysis import comparison, history
from nlijob.analysis.comparison import ComparedRun, NamedFigures, compare, labelled_rows
from nlijob.analysis.figures import Figures
from nlijob.analysis.history import Series, build_history, read_entries
from nlijob.analysis.runs import (
    NoOutcomeError,
    read_outcome,
    read_test_rows,
    read_trial_rows,
)
from nlijob.errors import ConfigurationError, JobError, NotAvailableError
from nlijob.records.outcome import Results
from nlijob.report import charts
from nlijob.report.chart_drawing import Plot
from nlijob.report.charts import Change
from nlijob.report.render import render_page
from nlijob.report.view.compare import compare_page
from nlijob.report.view.index import MOST_SERIES, index_page, repeated_series
from nlijob.report.view.text import as_name
from nlijob.rundir import RunDir, write_text

LONGEST_IN_CHART = 30
"""Longest name of a run beside a chart, in characters."""
MARK_WITHIN = 4096
"""The mark of the command that wrote a page or JSON file is within its first bytes."""


def write_comparison(folders: Sequence[Path], output: Path) -> tuple[Path, Path]:
    """Compare finished runs with the first of them; returns the paths of the page and the JSON.

    Files written by an earlier comparison are replaced; other files are never overwritten. Raises
    ConfigurationError on unusable folders or output, NotAvailableError if a folder holds no
    finished run.
    """
    json_path = _checked_output(output, comparison.KIND)
    runs = _read_runs(folders)
    outcome = compare(runs)
    links = {
        run.name: relative_link(RunDir(folder).report, output)
        for run, folder in zip(runs, folders, strict=True)
        if RunDir(folder).report.is_file()
    }
    plot = _accuracy_plot(outcome.runs)
    page = compare_page(outcome, links, json_path.name, __version__)
    html = render_page("compare.html.j2", page=page, plots={"accuracy": plot})
    _write(output, html, json_path, records.dump(outcome))
    return output, json_path


def write_index(runs_dir: Path, output: Path) -> tuple[Path, Path]:
    """Write a page on all runs directly in a folder; returns the paths of the page and the JSON.

    Files written earlier by this command are replaced; other files are never overwritten. Raises
    ConfigurationError on an unusable output, NotAvailableError if there is no run.
    """
    json_path = _checked_output(output, history.KIND)
    if not runs_dir.is_dir():
        raise NotAvailableError(f"{runs_dir}: no such folder", "name the folder that holds runs")
    try:
        entries, others = read_entries(runs_dir)
    except OSError as error:
        raise NotAvailableError(f"{runs_dir} cannot be read: {error.strerror}") from error
    if not entries:
        raise NotAvailableError(
            f"{runs_dir} holds no runs", "name the folder that holds them, such as runs"
        )
    found = build_history(entries)
    links = {
        entry.folder: relative_link(RunDir(runs_dir / entry.folder).report, output)
        for entry in found.entries
        if entry.has_report
    }
    name = runs_dir.resolve().name or str(runs_dir)
    plots: dict[str, Plot] = {}
    for number, series in enumerate(repeated_series(found)[:MOST_SERIES], start=1):
        plots |= _trends(number, series)
    page = index_page(found, name, links, others, __version__)
    html = render_page("index.html.j2", page=page, plots=plots)
    _write(output, html, json_path, records.dump(history.index(found)))
    return output, json_path


def relative_link(target: Path, page: Path) -> str:
    """Relative URL from a page to a file; works from disk and from a web server.

    It always begins with a dot, so that the name of a folder is never read as a scheme or host.
    """
    path = os.path.relpath(target.resolve(), page.parent.resolve())
    parts = (quote(os.fsencode(part), safe="") for part in Path(path).parts)
    return "/".join((".", *parts))


# ---------------------------------------------------------------- reading


def _read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    if len(folders) < 2:
        raise ConfigurationError(
            "compare needs at least two runs", "name their folders, such as runs/demo runs/other"
        )
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (same := seen.setdefault(folder.resolve(), folder)) is not folder:
            raise ConfigurationError(f"{same} and {folder} are the same run")
    outcomes = _all_or_every_fault(folders)
    return [
        ComparedRun(name, results, _rows(folder, results))
        for name, folder, results in zip(_names(folders, outcomes), folders, outcomes, strict=True)
    ]


def _all_or_every_fault(folders: Iterable[Path]) -> list[Results]:
    outcomes, faults = [], []
    for folder in folders:
        try:
            if not folder.is_dir():
                raise NotAvailableError(f"{folder}: no such folder")
            outcomes.append(read_outcome(RunDir(folder)))
        except NoOutcomeError as error:
            faults.append(_fault(folder, error))
        except JobError as error:
            faults.append(error.message)
    if faults:
        raise NotAvailableError(
            "\n".join(faults),
            "name folders of finished runs; `report RUN_DIR` updates a run of another version",
        )
    return outcomes


def _rows(folder: Path, results: Results) -> tuple[comparison.LabelledRow, ...]:
    try:
        run = RunDir(folder)
        rows = read_test_rows(run, results)
        return labelled_rows(results, *rows, read_trial_rows(run, results))
    except NoOutcomeError as error:
        raise NotAvailableError(
            _fault(folder, error), f"`report {folder}` evaluates the run again from its records"
        ) from error


def _fault(folder: Path, error: NoOutcomeError) -> str:
    return f"{folder} holds no finished run to compare ({error.state}): {error.reason}"


def _names(folders: Sequence[Path], outcomes: Sequence[Results]) -> list[str]:
    """The ids of the runs, or their folders if two runs have the same id."""
    ids = [outcome.run.run_id for outcome in outcomes]
    return ids if len({*ids}) == len(ids) else [str(folder) for folder in folders]


# ---------------------------------------------------------------- charts


def _accuracy_plot(runs: Sequence[NamedFigures]) -> Plot:
    changes = [
        Change(
            _shortened(as_name(run.name)),
            run.figures.base_accuracy,
            run.figures.expected_accuracy,
            run.figures.base_accuracy_interval,
            run.figures.expected_interval,
        )
        for run in runs
    ]
    caption = (
        "Test accuracy of each run before (square) and after tuning (circle), with 95 % intervals"
        f"{_of_several(run.figures for run in runs)}."
    )
    title = "Accuracy of the runs before and after tuning"
    return charts.change_chart("chart-accuracy", title, caption, changes)


def _of_several(figures: Iterable[Figures]) -> str:
    """What the accuracy is where a run has several trainings."""
    several = any(one.trainings > 1 for one in figures)
    return "; of a run with several trainings, the mean over them" if several else ""


def _trends(number: int, series: Series) -> dict[str, Plot]:
    """Charts of accuracy and, where they were measured, time and energy over a series of runs."""
    runs = [(run.started, run.figures) for run in series.runs if run.started and run.figures]
    times = [(moment, one.total_s / 60) for moment, one in runs if one.attempts]
    energies = [(m, one.energy_j / 3600) for m, one in runs if one.energy_j is not None]
    plots = {f"series-{number}": _accuracy_trend(number, runs)}
    if times:
        plots[f"series-{number}-time"] = _amount_trend(f"time-{number}", "Job time", times, "min")
    if energies:
        plots[f"series-{number}-energy"] = _amount_trend(
            f"energy-{number}", "GPU energy", energies, "Wh"
        )
    return plots


def _amount_trend(
    name: str, title: str, amounts: Sequence[tuple[datetime.datetime, float]], unit: str
) -> Plot:
    caption = f"{title} of each run, by start time (UTC)."
    moments, values = zip(*amounts, strict=True)
    return charts.amount_trend(f"chart-{name}", title, caption, moments, values, unit)


def _accuracy_trend(number: int, runs: Sequence[tuple[datetime.datetime, Figures]]) -> Plot:
    caption = (
        "Test accuracy of each run before and after tuning, by start time (UTC); the band shows "
        f"the 95 % intervals after tuning{_of_several(one for _, one in runs)}."
    )
    return charts.trend(
        f"chart-series-{number}",
        f"Accuracy over time, series {number}",
        caption,
        [moment for moment, _ in runs],
        [one.base_accuracy for _, one in runs],
        [one.expected_accuracy for _, one in runs],
        [one.expected_interval for _, one in runs],
    )


def _shortened(name: str) -> str:
    """A name with its middle left out, as names often begin alike."""
    name = " ".join(name.split())
    half = LONGEST_IN_CHART // 2
    return name if len(name) <= LONGEST_IN_CHART else f"{name[:half]}…{name[-half + 1 :]}"


# ---------------------------------------------------------------- writing


def _checked_output(output: Path, kind: str) -> Path:
    """Path of the JSON. Raises ConfigurationError if another command wrote an existing file."""
    json_path = output.with_suffix(".json") if output.name else output
    if output.suffix not in (".html", ".htm"):
        raise ConfigurationError(f"--output {output}: name a file that ends in .html")
    for path in (output, json_path):
        try:
            if path.exists() and not _written_by(path, kind):
                raise ConfigurationError(
                    f"{path} exists and was not written by this command; it is left unchanged",
                    "name another file with --output",
                )
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    return json_path


def _written_by(path: Path, kind: str) -> bool:
    with path.open("rb") as handle:
        beginning = handle.read(MARK_WITHIN)
    marks = (f'<meta name="generator" content="{kind}">', f'"kind": "{kind}"')
    return any(mark.encode() in beginning for mark in marks)


def _write(output: Path, html: str, json_path: Path, document: str) -> None:
    # JSON can hold a lone surrogate, which cannot be encoded as UTF-8.
    write_text(json_path, document.encode("utf-8", "replace").decode())
    write_text(output, html.encode("utf-8", "replace").decode())
