"""The report of a run: a self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from nlijob.analysis.outcome import build_results
from nlijob.fingerprints import settings_of
from nlijob.kept import kept_view
from nlijob.printable import printable
from nlijob.recipe_text import best_recipe
from nlijob.records.job import HardwareSample, Inputs, TrainStep
from nlijob.records.outcome import Results
from nlijob.records.serialization import read_all, read_log
from nlijob.report.chart_drawing import Plot
from nlijob.report.glossary import FirstUses
from nlijob.report.model_card import model_card
from nlijob.report.sections import Outcome, draw_plots
from nlijob.report.summary_markdown import summary_markdown
from nlijob.report.view.page import build_page
from nlijob.rundir import RunDir, write_record, write_text
from nlijob.trials import stages_of

STAGE = "report"
PACKAGE = Path(__file__).parents[1]
TEMPLATES = next(
    folder for folder in (PACKAGE / "templates", PACKAGE.parent / "templates") if folder.is_dir()
)
"""Inside the installed package; beside it in a checkout."""
STYLES = ("base", "first-screen", "facts", "tables", "charts", "cases", "code", "print")
"""Where two parts say something of one element, the later one holds."""


def render(run: RunDir) -> Path:
    """Evaluate a run and write results.json, the model card, summary.md and report.html.

    Needs only the records, neither torch nor a GPU. Each file is written atomically, and the marker
    of the stage last. Returns the path of the report. Raises OSError if a record is missing and
    ValueError if one is damaged.
    """
    results = build_results(run)
    run.unmark(STAGE)
    write_record(run.results, results)
    write_text(run.model_card, model_card(results))
    write_text(run.summary, summary_markdown(results))
    write_text(run.report, report_html(results, run))
    outputs = [run.results, run.model_card, run.summary, run.report]
    if results.search:
        write_text(run.best_recipe, best_recipe(results.run.config))
        outputs.append(run.best_recipe)
    run.mark_complete(STAGE, _inputs(run, results), outputs)
    return run.report


def _inputs(run: RunDir, results: Results) -> Inputs:
    """What the report is made from: its settings, and the evaluation in the folder."""
    stage = next(one for one in stages_of(results.run.config) if one.name == STAGE)
    markers = {name: run.read_marker(name) for name in stage.follows}
    follows = {name: marker.fingerprint for name, marker in markers.items() if marker is not None}
    return Inputs(settings_of(results.run.config, stage), follows, "")


def report_html(results: Results, run: RunDir) -> str:
    """The page as text; the charts are drawn from the logs of the run."""
    steps = read_all(TrainStep, kept_view(run, results.run.config).train_log)
    samples = read_log(HardwareSample, run.hardware).records
    outcome = Outcome(results, steps, samples)
    page, plots = build_page(outcome), draw_plots(outcome)
    return render_page("report.html.j2", page, plots, FirstUses().linked)


def render_page(
    template: str,
    page: object,
    plots: Mapping[str, Plot],
    linked: Callable[[str], Markup] = escape,
) -> str:
    """Render a template of `templates/` with charts, style and script inlined.

    Text in `page` is escaped. The template also gets `style`, `script` and `script_hash` (for
    the Content-Security-Policy), and the filter `terms`: `linked` escapes a text and links its
    terms, where the page has a glossary.
    """
    script = page_script()
    return (
        _environment(linked)
        .get_template(template)
        .render(
            page=page,
            plots=plots,
            style=Markup(page_style()),
            script=Markup(script),
            script_hash=_csp_hash(script),
        )
    )


def page_style() -> str:
    """The parts of `templates/styles/` that every page has, in the order of `STYLES`."""
    files = (TEMPLATES / "styles" / f"{name}.css" for name in STYLES)
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def page_script() -> str:
    """All of `templates/scripts/`, each file in a scope of its own, so that no name meets another.

    A script does nothing on a page that lacks the elements it is about.
    """
    files = sorted((TEMPLATES / "scripts").glob("*.js"))
    parts = (f"{{\n{file.read_text(encoding='utf-8')}}}\n" for file in files)
    return '"use strict";\n' + "".join(parts)


def _environment(linked: Callable[[str], Markup]) -> Environment:
    # Autoescape by file name would not cover *.html.j2, so it is always on.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_without_control_characters,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["terms"] = lambda text: linked(_without_control_characters(text))
    return environment


def _without_control_characters(value: Any) -> Any:
    """A value that a template prints; HTML has no way to write control characters."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return value


def _csp_hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
