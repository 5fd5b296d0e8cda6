"""Writes the page on all runs below a folder, `index`, with its JSON beside it.

It is to be done in two seconds for 500 runs, so it draws its trends without a plotting library.
"""

from __future__ import annotations

from pathlib import Path

from nlijob import __version__, records
from nlijob.analysis import history
from nlijob.analysis.history import build_history, read_entries
from nlijob.errors import NotAvailableError
from nlijob.report.pages import checked_output, quoted, relative_link, write_page
from nlijob.report.templates import render_page
from nlijob.report.view.index import Links, index_page
from nlijob.run_folders import holds_a_run
from nlijob.rundir import RunDir


def write_index(runs_dir: Path, output: Path) -> tuple[Path, Path]:
    """Write a page on all runs below a folder; returns the paths of the page and the JSON.

    Files written earlier by this command are replaced; other files are never overwritten. Raises
    ConfigurationError on an unusable output, NotAvailableError if there is no run.
    """
    json_path = checked_output(output, history.KIND)
    if not runs_dir.is_dir():
        raise NotAvailableError(f"{runs_dir}: no such folder", "name the folder that holds runs")
    try:
        entries, found = read_entries(runs_dir)
        is_run = not entries and holds_a_run(runs_dir)
    except OSError as error:
        raise NotAvailableError(f"{runs_dir} cannot be read: {error.strerror}") from error
    if not entries:
        what = "is a run itself" if is_run else "holds no runs"
        raise NotAvailableError(
            f"{runs_dir} {what}", "name the folder that holds them, such as runs"
        )
    known = build_history(entries)
    name = runs_dir.resolve().name or str(runs_dir)
    page = index_page(known, name, _links(runs_dir, output), found, __version__)
    html = render_page("index.html.j2", page=page, plots={})
    write_page(output, html, json_path, records.dump(history.index(known)))
    return output, json_path


def _links(runs_dir: Path, output: Path) -> Links:
    """The URLs of a run's page and JSON, by the name of its folder.

    Only the way to the folder of runs is looked up on disk, once: no run is reached by a link.
    """
    base = relative_link(runs_dir, output)
    files = RunDir(runs_dir)

    def url(folder: str, file: Path) -> str:
        return "/".join((base, *map(quoted, folder.split("/")), quoted(file.name)))

    return Links(
        report=lambda folder: url(folder, files.report),
        results=lambda folder: url(folder, files.results),
    )
