"""The whole report, section after section."""

from __future__ import annotations

from dataclasses import dataclass

from nlijob.analysis.wording import count, plural
from nlijob.heads import describe
from nlijob.records.job import SPLITS
from nlijob.records.outcome import Results
from nlijob.report.sections import SECTIONS, Outcome
from nlijob.report.view.parts import Fact, View
from nlijob.rundir import moment


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    subtitle: str
    run_facts: tuple[Fact, ...]
    sections: tuple[View, ...]
    footer: str

    @property
    def contents(self) -> tuple[tuple[str, str], ...]:
        """Anchor and title of each section."""
        return tuple((section.id, section.title) for section in self.sections)


def build_page(outcome: Outcome) -> Page:
    """The page of a run."""
    results = outcome.results
    run = results.run
    return Page(
        title=run.config.report.title or f"What tuning changed in {_model_name(results)}",
        subtitle=_subtitle(results),
        run_facts=(
            Fact("run", run.run_id),
            Fact("recipe", run.recipe),
            Fact("started", _time_of_day(run.created_at)),
            Fact("attempts", count(results.attempts)),
        ),
        sections=tuple(
            View(id=one.id, title=one.title, template=one.template, view=view)
            for one in SECTIONS
            if (view := one.view(outcome)) is not None
        ),
        footer=f"nlijob {run.nlijob_version} · record format {results.format_version}",
    )


def _subtitle(results: Results) -> str:
    manifest = results.manifest
    task = describe(results.run.config.model.head).task
    counts = [(manifest.splits[split].rows, split) for split in SPLITS if split in manifest.splits]
    *others, (last, split) = counts
    rows = ", ".join(
        [*(f"{count(rows)} {name}" for rows, name in others), plural(last, f"{split} row")]
    )
    name = _model_name(results)
    name = name[0].upper() + name[1:] if name.startswith("the ") else name
    times = f"; {plural(len(results.trials.trials), 'training')}" if results.trials else ""
    dataset = "the demo's sentences" if manifest.dataset == "demo" else manifest.dataset
    return f"{name} {task}, on {dataset}: {rows}{times}"


def _model_name(results: Results) -> str:
    name = results.run.config.model.name
    return "the demo's tiny model" if name == "demo" else name


def _time_of_day(text: str) -> str:
    time = moment(text)
    return "not known" if time is None else f"{time:%Y-%m-%d %H:%M:%S %Z}"
