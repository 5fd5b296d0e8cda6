"""The report of a run: a self-contained HTML file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nlijob.analysis.figures import run_figures
from nlijob.analysis.outcome import build_results
from nlijob.analysis.run_figures import made_from
from nlijob.belonging import doubts
from nlijob.fingerprints import settings_of
from nlijob.kept import kept_view
from nlijob.recipe_text import best_recipe
from nlijob.records.figures import RunFigures
from nlijob.records.job import HardwareSample, Inputs, TrainStep
from nlijob.records.outcome import Results
from nlijob.records.serialization import read_all, read_log
from nlijob.report.glossary import FirstUses
from nlijob.report.model_card import model_card
from nlijob.report.sections import Outcome, draw_plots
from nlijob.report.summary_markdown import summary_markdown
from nlijob.report.templates import render_page
from nlijob.report.view.page import build_page
from nlijob.report.view.summary import summary_section
from nlijob.rundir import RunDir, write_record, write_text
from nlijob.trials import stages_of

STAGE = "report"


def render(run: RunDir) -> Path:
    """Evaluate a run and write results.json, figures.json, the model card, summary.md, report.html.

    Needs only the records, neither torch nor a GPU. Each file is written atomically, and the marker
    of the stage last. Returns the path of the report. Raises OSError if a record is missing and
    ValueError if one is damaged.
    """
    results = build_results(run)
    run.unmark(STAGE)
    write_record(run.results, results)
    write_record(run.figures, listed_figures(run, results))
    write_text(run.model_card, model_card(results))
    write_text(run.summary, summary_markdown(results))
    write_text(run.report, report_html(results, run))
    outputs = [run.results, run.figures, run.model_card, run.summary, run.report]
    if results.search:
        write_text(run.best_recipe, best_recipe(results.run.config))
        outputs.append(run.best_recipe)
    run.mark_complete(STAGE, _inputs(run, results), outputs)
    return run.report


def listed_figures(run: RunDir, results: Results) -> RunFigures:
    """What lists of runs read instead of results.json, as long as the run stays as it is."""
    return replace(
        run_figures(results),
        tone=summary_section(results).tone,
        made_from="" if doubts(run) else made_from(run),
    )


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
