"""The sections of a report, in the order of the page and of its contents.

A section is its view (nlijob/report/view/<id>.py), its template (templates/sections/<id>.html.j2)
and one line in `SECTIONS`. A template prints its view as `view` and draws with `plots`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nlijob.records.job import HardwareSample, TrainStep
from nlijob.records.outcome import Results
from nlijob.report import plots
from nlijob.report.chart_drawing import Plot
from nlijob.report.view.accuracy import accuracy_section
from nlijob.report.view.calibration import calibration_section
from nlijob.report.view.cases import cases_section
from nlijob.report.view.configuration import configuration_section
from nlijob.report.view.data import data_section
from nlijob.report.view.epochs import epochs_section
from nlijob.report.view.forgetting import forgetting_section
from nlijob.report.view.glossary import glossary_section
from nlijob.report.view.parameters import parameters_section
from nlijob.report.view.prompt import prompt_section
from nlijob.report.view.resources import resources_section
from nlijob.report.view.search import search_section
from nlijob.report.view.slices import slices_section
from nlijob.report.view.summary import summary_section
from nlijob.report.view.time import time_section
from nlijob.report.view.trainings import trainings_section
from nlijob.report.view.transfer import transfer_section
from nlijob.report.view.usage import usage_section


@dataclass(frozen=True)
class Outcome:
    """Input of the sections: the results of a run, and its logs if they exist."""

    results: Results
    steps: Sequence[TrainStep] = ()
    samples: Sequence[HardwareSample] = ()


@dataclass(frozen=True)
class Section:
    """A section before it is built for a run."""

    id: str
    """Anchor on the page, and name of the template."""
    title: str
    """Entry in the contents."""
    view: Callable[[Outcome], object | None]
    """None leaves the section out."""
    plots: Callable[[Outcome], Mapping[str, Plot]] = lambda _: {}
    """Charts by name; a chart without figures is left out."""

    @property
    def template(self) -> str:
        """Path of the template within `templates/`."""
        return f"sections/{self.id}.html.j2"


SECTIONS = (
    Section("summary", "Summary", lambda run: summary_section(run.results)),
    Section(
        "trainings",
        "Trainings",
        lambda run: trainings_section(run.results),
        lambda run: plots.training_plots(run.results),
    ),
    Section("search", "Search", lambda run: search_section(run.results)),
    Section(
        "accuracy",
        "Accuracy",
        lambda run: accuracy_section(run.results),
        lambda run: plots.accuracy_plots(run.results),
    ),
    Section(
        "slices",
        "Where it helped and hurt",
        lambda run: slices_section(run.results),
        lambda run: plots.slice_plots(run.results),
    ),
    Section(
        "transfer",
        "Elsewhere",
        lambda run: transfer_section(run.results),
        lambda run: plots.transfer_plots(run.results),
    ),
    Section(
        "forgetting",
        "What was forgotten",
        lambda run: forgetting_section(run.results),
        lambda run: plots.forgetting_plots(run.results),
    ),
    Section(
        "calibration",
        "Calibration",
        lambda run: calibration_section(run.results),
        lambda run: plots.calibration_plots(run.results),
    ),
    Section(
        "epochs",
        "Epochs and selection",
        lambda run: epochs_section(run.results),
        lambda run: plots.epoch_plots(run.results),
    ),
    Section("cases", "Failure cases", lambda run: cases_section(run.results)),
    Section(
        "time",
        "Time",
        lambda run: time_section(run.results, run.steps),
        lambda run: plots.step_plots(run.steps),
    ),
    Section("parameters", "Parameters", lambda run: parameters_section(run.results)),
    Section(
        "resources",
        "Resources",
        lambda run: resources_section(run.results),
        lambda run: plots.hardware_plots(run.results, run.samples),
    ),
    Section("prompt", "Prompt", lambda run: prompt_section(run.results)),
    Section("data", "Data", lambda run: data_section(run.results)),
    Section("usage", "Use the adapter", lambda run: usage_section(run.results)),
    Section("configuration", "Configuration", lambda run: configuration_section(run.results)),
    Section("glossary", "Glossary", lambda _: glossary_section()),
)


def draw_plots(run: Outcome) -> dict[str, Plot]:
    """All charts of the report, by name."""
    return {name: plot for one in SECTIONS for name, plot in one.plots(run).items()}
