"""Writes the page on compared runs, `compare`, with its JSON beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from nlijob import __version__, records
from nlijob.analysis import comparison
from nlijob.analysis.comparison import ComparedRun, NamedFigures, compare, labelled_rows
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
from nlijob.report.pages import checked_output, relative_link, write_page
from nlijob.report.templates import render_page
from nlijob.report.view.compare import compare_page
from nlijob.report.view.text import as_name
from nlijob.rundir import RunDir

LONGEST_IN_CHART = 30
"""Longest name of a run beside a chart, in characters."""
MOST_RUNS = 10
"""Most runs that are compared: with more, each pair's test has little power left, and no table of
them fits a page."""


def write_comparison(folders: Sequence[Path], output: Path) -> tuple[Path, Path]:
    """Compare finished runs with the first of them; returns the paths of the page and the JSON.

    Files written by an earlier comparison are replaced; other files are never overwritten. Raises
    ConfigurationError on unusable folders or output, NotAvailableError if a folder holds no
    finished run.
    """
    json_path = checked_output(output, comparison.KIND)
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
    write_page(output, html, json_path, records.dump(outcome))
    return output, json_path


# ---------------------------------------------------------------- reading


def _read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    if len(folders) < 2:
        raise ConfigurationError(
            "compare needs at least two runs", "name their folders, such as runs/demo runs/other"
        )
    if len(folders) > MOST_RUNS:
        raise ConfigurationError(
            f"compare takes at most {MOST_RUNS} runs, and {len(folders)} were named",
            "name fewer; `index` lists any number of them",
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
        f"{_of_several(runs)}."
    )
    title = "Accuracy of the runs before and after tuning"
    return charts.change_chart("chart-accuracy", title, caption, changes)


def _of_several(runs: Sequence[NamedFigures]) -> str:
    """What the accuracy is where a run has several trainings."""
    several = any(run.figures.trainings > 1 for run in runs)
    return "; of a run with several trainings, the mean over them" if several else ""


def _shortened(name: str) -> str:
    """A name with its middle left out, as names often begin alike."""
    name = " ".join(name.split())
    half = LONGEST_IN_CHART // 2
    return name if len(name) <= LONGEST_IN_CHART else f"{name[:half]}…{name[-half + 1 :]}"
