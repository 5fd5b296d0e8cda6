"""The whole report, section after section."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from nlijob.analysis.wording import count
from nlijob.heads import describe
from nlijob.records import SPLITS, Results, TrainStep
from nlijob.report.snippet import usage_note, usage_snippet
from nlijob.report.view.accuracy import Accuracy, accuracy_section
from nlijob.report.view.calibration import CalibrationSection, calibration_section
from nlijob.report.view.case_list import CaseList, case_list
from nlijob.report.view.cases import Cases, cases_section
from nlijob.report.view.configuration import configuration_tables
from nlijob.report.view.controls import Controls, controls_section
from nlijob.report.view.data import Data, data_section
from nlijob.report.view.environment import environment_facts, packages_table
from nlijob.report.view.epochs import Epochs, epochs_section
from nlijob.report.view.parameters import Parameters, parameters_section
from nlijob.report.view.parts import Fact, Table
from nlijob.report.view.prompt import Prompt, prompt_section
from nlijob.report.view.resources import Resources, resources_section
from nlijob.report.view.slices import Slices, slices_section
from nlijob.report.view.summary import Summary, summary_section
from nlijob.report.view.text import visible
from nlijob.report.view.time import Time, time_section


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    subtitle: str
    run_facts: tuple[Fact, ...]
    summary: Summary
    accuracy: Accuracy
    controls: Controls
    calibration: CalibrationSection
    slices: Slices
    epochs: Epochs
    time: Time
    parameters: Parameters
    resources: Resources
    cases: Cases
    case_list: CaseList
    prompt: Prompt
    data: Data
    configuration: tuple[Table, ...]
    environment: tuple[Fact, ...]
    packages: Table
    command: str
    snippet: str
    snippet_note: str
    footer: str


def build_page(results: Results, steps: Sequence[TrainStep] = ()) -> Page:
    """The page of a run; `steps` are the training log, where it is there."""
    run = results.run
    config = run.config
    return Page(
        title=config.report.title or f"What tuning changed in {_model_name(results)}",
        subtitle=_subtitle(results),
        run_facts=(
            Fact("run", run.run_id),
            Fact("recipe", run.recipe),
            Fact("started", _time_of_day(run.created_at)),
            Fact("attempts", count(results.attempts)),
        ),
        summary=summary_section(results),
        accuracy=accuracy_section(results),
        controls=controls_section(results),
        calibration=calibration_section(results),
        slices=slices_section(results),
        epochs=epochs_section(results),
        time=time_section(results, steps),
        parameters=parameters_section(results),
        resources=resources_section(results),
        cases=cases_section(results.cases, results.manifest.label_names),
        case_list=case_list(results.cases, results.manifest.label_names),
        prompt=prompt_section(results),
        data=data_section(results),
        configuration=tuple(configuration_tables(config)),
        environment=environment_facts(results.environment),
        packages=packages_table(results.environment),
        command=visible(" ".join(run.command)),
        snippet=usage_snippet(results),
        snippet_note=usage_note(results),
        footer=f"nlijob {run.nlijob_version} · record format {results.format_version}",
    )


def _subtitle(results: Results) -> str:
    manifest = results.manifest
    task = describe(results.run.config.model.head).task
    rows = ", ".join(
        f"{count(manifest.splits[split].rows)} {split}"
        for split in SPLITS
        if split in manifest.splits
    )
    name = _model_name(results)
    name = name[0].upper() + name[1:] if name.startswith("the ") else name
    return f"{name} {task}, on {manifest.dataset}: {rows} rows"


def _model_name(results: Results) -> str:
    name = results.run.config.model.name
    return "the demo's tiny model" if name == "demo" else name


def _time_of_day(moment: str) -> str:
    return f"{datetime.datetime.fromisoformat(moment):%Y-%m-%d %H:%M:%S %Z}"
