"""View of the index page: all runs in a folder."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nlijob.analysis.history import Check, Entry, History, Series
from nlijob.analysis.wording import (
    NOT_MEASURED,
    at_least,
    clock,
    count,
    counted,
    energy,
    interval,
    listed,
    money,
    p_value,
    percent,
    plural,
    points,
    points_interval,
    which,
)
from nlijob.records.figures import Figures
from nlijob.records.intervals import Interval
from nlijob.records.outcome import SIGNIFICANT
from nlijob.records.trials import Expected
from nlijob.report.view.compare import NO_GPU, cost_text, difference_note, gate_text
from nlijob.report.view.configuration import setting_text
from nlijob.report.view.parts import Fact, View
from nlijob.report.view.text import as_name, unbroken, visible
from nlijob.report.view.trend import Point, accuracy_trend, amount_trend
from nlijob.run_folders import FoundRuns

MOST_SERIES = 50
"""Most series with a section of their own; the latest come first."""

COLUMNS = (
    *("accuracy before", "accuracy after", "gain", "time", "GPU energy", "cost"),
    *("gate", "series"),
)
"""The figures in the table."""
FURTHER_COLUMNS = (
    *("model", "data set", "machine", "training rows", "test rows", "trainings"),
    *("balanced accuracy after", "macro F1 after", "selected epoch", "nlijob"),
)
"""More of them, which the reader can ask for."""
AS_TEXT = ("model", "data set", "machine", "nlijob")
"""Columns without numbers."""


@dataclass(frozen=True)
class Links:
    """The URLs of a run's files, by the name of its folder."""

    report: Callable[[str], str]
    results: Callable[[str], str]


def index_page(history: History, folder: str, links: Links, found: FoundRuns, version: str) -> View:
    """The page on the runs that were found in a folder of this name."""
    repeated = repeated_series(history)
    numbers = {one.newest.series: str(n) for n, one in enumerate(repeated, start=1)}
    alone = len(history.series) - len(repeated)
    below = {one.newest.folder for one in repeated if one.is_below}
    further = (*FURTHER_COLUMNS, *_idle_columns(history.entries))
    anchors = {one.folder: f"run-{n}" for n, one in enumerate(history.entries, start=1)}
    return View(
        title=f"{plural(len(history.entries), 'run')} in “{as_name(folder)}”",
        subtitle=_span(history.entries),
        generator="nlijob index",
        contents=(
            ("summary", "Summary"),
            ("runs", "All runs"),
            *((f"series-{n}", f"Series {n}") for n in list(numbers.values())[:MOST_SERIES]),
        ),
        below=tuple(
            View(
                text=unbroken(_below(one, numbers[one.newest.series], check)),
                anchor=anchors[one.newest.folder],
            )
            for one in repeated
            for check in one.checks
            if check.is_below
        ),
        steady=_steady(repeated),
        left_out=_left_out(history.entries, found),
        columns=tuple(
            View(name=name, numeric=name not in AS_TEXT, further=name in further)
            for name in (*COLUMNS, *FURTHER_COLUMNS)
        ),
        has_several=any(one.figures and one.figures.trainings > 1 for one in history.entries),
        runs=tuple(
            _run_row(anchors[one.folder], one, links, numbers, below) for one in history.entries
        ),
        series=tuple(
            _series(number, one) for number, one in enumerate(repeated[:MOST_SERIES], start=1)
        ),
        series_note=_series_note(len(repeated), alone),
        footer=f"nlijob {version}",
    )


def _idle_columns(entries: Sequence[Entry]) -> Iterator[str]:
    """The columns that would tell nothing of any of the runs."""
    known = [one.figures for one in entries if one.figures]
    if not any(one.has_gpu for one in known):
        yield "GPU energy"
    if all(one.cost is None for one in known):
        yield "cost"
    if all(one.gates is None for one in known):
        yield "gate"


def repeated_series(history: History) -> tuple[Series, ...]:
    """The series with at least two runs, the latest first; a single run has no trend."""
    return tuple(one for one in history.series if len(one.runs) > 1)


# ---------------------------------------------------------------- first screen


def _span(entries: Sequence[Entry]) -> str:
    days = _days(entries)
    if len(days) < 2:
        return f"Started on {days[0]}." if days else ""
    return f"Started from {days[0]} to {days[1]}."


def _days(entries: Sequence[Entry]) -> tuple[str, ...]:
    """The first and the last day on which a run was started, or the only one."""
    moments = sorted(entry.started for entry in entries if entry.started is not None)
    return tuple(dict.fromkeys(f"{moment:%Y-%m-%d}" for moment in moments[:1] + moments[-1:]))


def _below(series: Series, number: str, check: Check) -> str:
    newest = series.newest
    assert newest.figures is not None
    return (
        f"The newest run of series {number}, “{as_name(newest.folder)}”, is significantly below "
        f"{_named(check)}: {percent(newest.figures.tuned_accuracy)} versus "
        f"{percent(check.accuracy)} on the same {plural(newest.figures.test_rows, 'test row')}, "
        f"{_test(series, check)}."
    )


def _steady(repeated: Sequence[Series]) -> str:
    if not repeated or any(one.is_below for one in repeated):
        return ""
    which = "The newest run" if len(repeated) == 1 else "In each series, the newest run"
    return (
        f"{which} is not significantly below the run before it or the earlier run of median "
        "accuracy. This does not prove that it is as good: on few rows, only a large drop can be "
        "detected."
    )


def _left_out(entries: Sequence[Entry], found: FoundRuns) -> str:
    words = {
        "unfinished": "not finished",
        "other version": "written by another version of nlijob",
        "damaged": "not readable",
    }
    numbers = {text: sum(e.state == state for e in entries) for state, text in words.items()}
    parts = [f"{count(number)} {text}" for text, number in numbers.items() if number]
    sentences = [f"Without figures: {listed(parts)}; the table says why."] if parts else []
    if found.others:
        verb = which(found.others, "holds", "hold")
        sentences.append(f"{plural(found.others, 'other folder')} {verb} no run.")
    if found.links_out:
        verb = which(found.links_out, "leads", "lead")
        sentences.append(f"{plural(found.links_out, 'link')} {verb} elsewhere; none is followed.")
    return " ".join(sentences)


def _series_note(drawn: int, alone: int) -> str:
    parts = []
    if drawn > MOST_SERIES:
        parts.append(f"The {MOST_SERIES} latest of {count(drawn)} series are shown.")
    if alone:
        verb = which(alone, "has", "have")
        parts.append(f"{plural(alone, 'run')} {verb} no other run to be compared with.")
    return " ".join(parts)


# ---------------------------------------------------------------- the table


def _run_row(
    anchor: str, entry: Entry, links: Links, numbers: Mapping[str, str], below: Container[str]
) -> View:
    known = entry.figures
    own = numbers.get(entry.series, "") if known else ""
    is_drawn = bool(own) and int(own) <= MOST_SERIES
    return View(
        anchor=anchor,
        started=f"{entry.started:%Y-%m-%d %H:%M}".split() if entry.started else ("not known",),
        name=as_name(entry.folder),
        href=links.report(entry.folder) if entry.has_report else "",
        results=links.results(entry.folder) if entry.has_results else "",
        about=_about(known) if known else "",
        state="" if entry.state == "finished" else entry.state,
        is_below=entry.folder in below,
        reason=visible(entry.reason),
        cells=(*_cells(known), *_settings_cells(known, own, is_drawn)) if known else (),
    )


def _about(one: Figures) -> str:
    about = f"{as_name(one.recipe)}: {as_name(one.model)} on {as_name(one.dataset)}"
    return about if one.trainings == 1 else f"{about}, {plural(one.trainings, 'training')}"


def _cells(one: Figures) -> tuple[View, ...]:
    """What tuning brought, and what it took."""
    used = "" if one.has_gpu else NO_GPU
    return (
        _cell(percent(one.base_accuracy), interval(one.base_accuracy_interval)),
        _cell(*_accuracy_cell(one)),
        _cell(*_gain_cell(one)),
        _cell(
            at_least(clock(one.total_s), one.is_least) if one.attempts else NOT_MEASURED,
            f"{one.attempts} attempts" if one.attempts > 1 else "",
        ),
        _cell(used or _watt_hours(one.energy_j)),
        _cell(cost_text(one)),
    )


def _watt_hours(joules: float | None) -> str:
    """Energy without the joules."""
    return energy(joules).partition(" (")[0]


def _settings_cells(one: Figures, series: str, is_drawn: bool) -> tuple[View, ...]:
    """Gate and series, and in their order the further columns."""
    gate = gate_text(one)
    return (
        _cell(gate, is_bad=gate == "not reached"),
        _cell(series or "alone", href=f"#series-{series}" if is_drawn else ""),
        _cell(as_name(one.model)),
        _cell(as_name(one.dataset)),
        _cell(as_name(counted(one.devices))),
        _cell(count(one.train_rows)),
        _cell(count(one.test_rows)),
        _cell(count(one.trainings)),
        _cell(percent(one.tuned_balanced_accuracy)),
        _cell(percent(one.tuned_macro_f1)),
        _cell(f"{one.selected_epoch} of {one.epochs}"),
        _cell(as_name(one.nlijob_version)),
    )


def _cell(value: str, note: str = "", href: str = "", is_bad: bool = False) -> View:
    return View(value=unbroken(value), note=unbroken(note), href=href, is_bad=is_bad)


def _accuracy_cell(one: Figures) -> tuple[str, str]:
    over = one.accuracy_over_trainings
    if over is None:
        return percent(one.tuned_accuracy), interval(one.tuned_accuracy_interval)
    return percent(over.mean), _extremes(over)


def _gain_cell(one: Figures) -> tuple[str, str]:
    over = one.gain_over_trainings
    if over is None:
        return points(one.gain), p_value(one.mcnemar_p)
    return points(over.mean), points_interval(over.interval)


def _extremes(over: Expected) -> str:
    """Lowest and highest accuracy of a run's trainings."""
    return interval(Interval(over.lowest, over.highest))


# ---------------------------------------------------------------- series


def _series(number: int, series: Series) -> View:
    newest = series.newest
    assert newest.figures is not None
    recipes = listed(sorted({as_name(run.figures.recipe) for run in series.runs if run.figures}))
    return View(
        anchor=f"series-{number}",
        title=f"Series {number}: {recipes}",
        subtitle=(
            f"{as_name(newest.figures.model)} on {as_name(newest.figures.dataset)}, scored on the "
            f"same {plural(newest.figures.test_rows, 'test row')} in every run"
        ),
        trends=_trends(series),
        facts=_series_facts(series),
        sentences=tuple(unbroken(_check_sentence(series, check)) for check in series.checks),
        settings=_settings(series),
        varying=_varying(series),
    )


def _trends(series: Series) -> tuple[View, ...]:
    """Accuracy and, where they were measured, time and energy over the runs of a series."""
    runs = [(run, run.figures) for run in series.runs if run.started and run.figures]
    several = any(one.trainings > 1 for _, one in runs)
    mean = ", of a run with several trainings the mean over them" if several else ""
    drawn = [
        accuracy_trend(
            [_accuracy_point(run, one) for run, one in runs],
            f"Test accuracy after tuning{mean}, with its 95 % interval, and before tuning",
            lambda value: percent(value, 0),
        )
    ]
    times = [_amount_point(run, one.total_s, clock) for run, one in runs if one.attempts]
    if times:
        drawn.append(amount_trend(times, "Job time", clock))
    energies = [
        _amount_point(run, one.energy_j, _watt_hours)
        for run, one in runs
        if one.energy_j is not None
    ]
    if energies:
        drawn.append(amount_trend(energies, "GPU energy", _watt_hours))
    return tuple(drawn)


def _accuracy_point(run: Entry, one: Figures) -> Point:
    assert run.started is not None
    return Point(
        moment=run.started,
        value=one.expected_accuracy,
        note=(
            f"{as_name(run.folder)}, {run.started:%Y-%m-%d %H:%M}: {percent(one.base_accuracy)} "
            f"before, {percent(one.expected_accuracy)} after (95 % interval "
            f"{interval(one.expected_interval)})"
        ),
        before=one.base_accuracy,
        interval=one.expected_interval,
    )


def _amount_point(run: Entry, amount: float, text: Callable[[float], str]) -> Point:
    assert run.started is not None
    note = f"{as_name(run.folder)}, {run.started:%Y-%m-%d %H:%M}: {text(amount)}"
    return Point(run.started, amount, note)


def _series_facts(series: Series) -> tuple[Fact, ...]:
    runs = [run.figures for run in series.runs if run.figures]
    accuracies = [one.expected_accuracy for one in runs]
    newest = runs[-1]
    return (
        Fact("runs", count(len(runs)), " to ".join(_days(series.runs))),
        Fact(
            "latest accuracy after tuning",
            percent(newest.expected_accuracy),
            f"95 % interval {interval(newest.expected_interval)}{_of_trainings(newest)}",
        ),
        Fact(
            "median accuracy",
            percent(statistics.median(accuracies)),
            f"{percent(min(accuracies))} to {percent(max(accuracies))}",
        ),
        _time_fact(runs),
        _together("total energy", runs, lambda one: one.energy_j, energy),
        _cost_fact(runs),
    )


def _of_trainings(one: Figures) -> str:
    """The range of a run's trainings and their number, where it has several."""
    over = one.accuracy_over_trainings
    return f"; {_extremes(over)} in {plural(one.trainings, 'training')}" if over else ""


def _time_fact(runs: Sequence[Figures]) -> Fact:
    """Median and sum over the runs whose time is known, with their number if some are not."""
    known = [one for one in runs if one.attempts]
    if not known:
        return Fact("median time", NOT_MEASURED)
    total = at_least(
        f"{clock(sum(one.total_s for one in known))} in total", any(one.is_least for one in known)
    )
    note = "" if len(known) == len(runs) else f", over {len(known)} of {len(runs)} runs"
    return Fact("median time", clock(statistics.median(one.total_s for one in known)), total + note)


def _together(
    name: str,
    runs: Sequence[Figures],
    figure: Callable[[Figures], float | None],
    text: Callable[[float | None], str],
) -> Fact:
    """Sum over the runs that have the figure, with their number if some do not."""
    known = [value for one in runs if (value := figure(one)) is not None]
    if not known:
        return Fact(name, text(None))
    note = "" if len(known) == len(runs) else f"over {len(known)} of {len(runs)} runs"
    return Fact(name, text(sum(known)), note)


def _cost_fact(runs: Sequence[Figures]) -> Fact:
    currencies = sorted({one.currency for one in runs if one.cost is not None})
    if len(currencies) != 1:
        text = "several currencies" if currencies else "no price given"
        return Fact("total cost", text)

    def text_of(amount: float | None) -> str:
        is_least = any(one.is_least for one in runs if one.cost is not None)
        return visible(at_least(money(amount or 0, currencies[0]), is_least))

    return _together("total cost", runs, lambda one: one.cost, text_of)


def _check_sentence(series: Series, check: Check) -> str:
    difference = check.difference.difference
    if check.p >= SIGNIFICANT:
        outcome = "no significant difference"
        if not check.difference.gained and not check.difference.lost:
            outcome = "correct on exactly the same rows"
    else:
        outcome = f"significantly {'above' if difference > 0 else 'below'}"
    return (
        f"The newest run, “{as_name(series.newest.folder)}”, versus {_named(check)}: {outcome}; "
        f"{_test(series, check)}."
    )


def _named(check: Check) -> str:
    if check.against == "the run before":
        return f"the run before it, “{as_name(check.folder)}”"
    return f"the earlier run of median accuracy, “{as_name(check.folder)}”"


def _test(series: Series, check: Check) -> str:
    adjusted = f", Holm-adjusted {p_value(check.p)}" if len(series.checks) > 1 else ""
    several = any(run.figures and run.figures.trainings > 1 for run in series.runs)
    kept = ", by the kept adapters" if several else ""
    return f"{difference_note(check.difference, adjusted)}{kept}"


def _settings(series: Series) -> str:
    """Settings in which the series differs from others on this page."""
    if not series.own_settings:
        return ""
    pairs = [f"{visible(key)} = {setting_text(v)}" for key, v in series.own_settings.items()]
    return (
        f"Settings that differ from another series of this model and data set: {'; '.join(pairs)}."
    )


def _varying(series: Series) -> str:
    if not series.varying:
        return ""
    return f"Not the same in all runs of this series: {listed(series.varying)}."
