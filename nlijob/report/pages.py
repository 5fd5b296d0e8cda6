"""The pages over several runs: `compare` and `index`, each with its JSON beside it."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from nlijob import __version__, records
from nlijob.analysis import comparison, history
from nlijob.analysis.comparison import ComparedRun, NamedFigures, compare, labelled_rows
from nlijob.analysis.figures import Figures
from nlijob.analysis.history import Series, build_history, read_entries
from nlijob.analysis.runs import NoOutcomeError, read_outcome, read_test_rows
from nlijob.errors import ConfigurationError, JobError, NotAvailableError
from nlijob.records import Results
from nlijob.report import charts
from nlijob.report.charts import Change
from nlijob.report.plots import Plot
from nlijob.report.render import render_page
from nlijob.report.view.compare import compare_page
from nlijob.report.view.index import MOST_SERIES, index_page, repeated_series
from nlijob.report.view.text import as_name
from nlijob.rundir import RunDir, write_text

LONGEST_IN_CHART = 30
"""Characters of a run's name beside a chart."""
MARK_WITHIN = 4096
"""Bytes at the beginning of a page or JSON that tell which command wrote it."""


def write_comparison(folders: Sequence[Path], output: Path) -> tuple[Path, Path]:
    """Compare finished runs, the first the reference; returns the page's and the JSON's path.

    Files that an earlier comparison wrote are replaced, others are left alone. Raises
    ConfigurationError on folders or an output that cannot be meant, NotAvailableError where a
    folder holds no finished run.
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
    html = render_page("compare.html.j2", page=page, plots=_inline({"accuracy": plot}))
    _write(output, html, json_path, records.dump(outcome))
    return output, json_path


def write_index(runs_dir: Path, output: Path) -> tuple[Path, Path]:
    """A page over all runs right below a folder; returns the page's and the JSON's path.

    Files that this command wrote earlier are replaced, others are left alone. Raises
    ConfigurationError on an output that cannot be meant, NotAvailableError without any run.
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
    html = render_page("index.html.j2", page=page, plots=_inline(plots))
    _write(output, html, json_path, records.dump(history.index(found)))
    return output, json_path


def relative_link(target: Path, page: Path) -> str:
    """The way from a page to a file, for a browser: also from a plain server, or from disk.

    It always begins with a dot, so that no name of a folder passes for a scheme or a host.
    """
    way = os.path.relpath(target.resolve(), page.parent.resolve())
    parts = (quote(os.fsencode(part), safe="") for part in Path(way).parts)
    return "/".join((".", *parts))


# ---------------------------------------------------------------- reading


def _read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    if len(folders) < 2:
        raise ConfigurationError(
            "compare takes two runs or more", "name their folders, such as runs/demo runs/other"
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
            "name folders of finished runs; `report RUN_DIR` measures one of another version again",
        )
    return outcomes


def _rows(folder: Path, results: Results) -> tuple[comparison.LabelledRow, ...]:
    try:
        return labelled_rows(results, *read_test_rows(RunDir(folder), results))
    except NoOutcomeError as error:
        raise NotAvailableError(
            _fault(folder, error), f"`report {folder}` measures the run again from its records"
        ) from error


def _fault(folder: Path, error: NoOutcomeError) -> str:
    return f"{folder} holds no finished run to compare ({error.state}): {error.reason}"


def _names(folders: Sequence[Path], outcomes: Sequence[Results]) -> list[str]:
    """The runs' ids; their folders where two have the same."""
    ids = [outcome.run.run_id for outcome in outcomes]
    return ids if len({*ids}) == len(ids) else [str(folder) for folder in folders]


# ---------------------------------------------------------------- charts


def _accuracy_plot(runs: Sequence[NamedFigures]) -> Plot:
    changes = [
        Change(
            _shortened(as_name(run.name)),
            run.figures.base_accuracy,
            run.figures.tuned_accuracy,
            (run.figures.base_accuracy_interval.low, run.figures.base_accuracy_interval.high),
            (run.figures.tuned_accuracy_interval.low, run.figures.tuned_accuracy_interval.high),
        )
        for run in runs
    ]
    caption = (
        "Test accuracy of each run before (square) and after tuning (circle), with 95 % intervals."
    )
    title = "Accuracy of the runs before and after tuning"
    return Plot(charts.change_chart("chart-accuracy", title, caption, changes), caption)


def _trends(number: int, series: Series) -> dict[str, Plot]:
    """Accuracy over time, and what the runs took where it was measured."""
    runs = [(run.started, run.figures) for run in series.runs if run.started and run.figures]
    times = [(moment, one.total_s / 60) for moment, one in runs]
    energies = [(m, one.energy_j / 3600) for m, one in runs if one.energy_j is not None]
    plots = {
        f"series-{number}": _accuracy_trend(number, runs),
        f"series-{number}-time": _amount_trend(f"time-{number}", "Time of the job", times, "min"),
    }
    if energies:
        plots[f"series-{number}-energy"] = _amount_trend(
            f"energy-{number}", "Energy of the GPUs", energies, "Wh"
        )
    return plots


def _amount_trend(
    name: str, title: str, amounts: Sequence[tuple[datetime.datetime, float]], unit: str
) -> Plot:
    caption = f"{title} of each run, at the time it was started (UTC)."
    moments, values = zip(*amounts, strict=True)
    return Plot(
        charts.amount_trend(f"chart-{name}", title, caption, moments, values, unit), caption
    )


def _accuracy_trend(number: int, runs: Sequence[tuple[datetime.datetime, Figures]]) -> Plot:
    caption = (
        "Test accuracy of each run before and after tuning, at the time it was started (UTC); "
        "the band holds the 95 % intervals after tuning."
    )
    svg = charts.trend(
        f"chart-series-{number}",
        f"Accuracy over time, series {number}",
        caption,
        [moment for moment, _ in runs],
        [one.base_accuracy for _, one in runs],
        [one.tuned_accuracy for _, one in runs],
        [(f.tuned_accuracy_interval.low, f.tuned_accuracy_interval.high) for _, f in runs],
    )
    return Plot(svg, caption)


def _shortened(name: str) -> str:
    """A name with its middle left out: beginnings are often alike."""
    name = " ".join(name.split())
    half = LONGEST_IN_CHART // 2
    return name if len(name) <= LONGEST_IN_CHART else f"{name[:half]}…{name[-half + 1 :]}"


def _inline(plots: dict[str, Plot]) -> dict[str, dict[str, str]]:
    return {
        name: {"svg": Markup(plot.svg), "caption": plot.caption} for name, plot in plots.items()
    }


# ---------------------------------------------------------------- writing


def _checked_output(output: Path, kind: str) -> Path:
    """The JSON's path. Raises ConfigurationError where a file that is not this command's stands."""
    json_path = output.with_suffix(".json") if output.name else output
    if output.suffix not in (".html", ".htm"):
        raise ConfigurationError(f"--output {output}: name a file that ends in .html")
    for path in (output, json_path):
        try:
            if path.exists() and not _written_by(path, kind):
                raise ConfigurationError(
                    f"{path} is there and was not written by this command; it is left alone",
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
    try:
        # A lone half of a surrogate pair, as JSON can carry it, is no text that can be written.
        write_text(json_path, document.encode("utf-8", "replace").decode())
        write_text(output, html.encode("utf-8", "replace").decode())
    except OSError as error:
        raise ConfigurationError(
            f"{output} cannot be written: {error.strerror}", "name another file with --output"
        ) from error
