"""A search for settings: its candidates, which of them differ, and which setting matters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nlijob.analysis.wording import (
    NOT_MEASURED,
    clock,
    count,
    interval,
    listed,
    mcnemar_name,
    p_value,
    percent,
    plural,
    points,
    points_interval,
    setting_text,
    settings_text,
    which,
)
from nlijob.records.intervals import Interval
from nlijob.records.outcome import Results
from nlijob.records.search import CandidateOutcome, Importance, Search
from nlijob.report.view.parts import Column, Row, Table, View, columns, row
from nlijob.report.view.text import unbroken, visible
from nlijob.stages import SEARCH

MOST_SHOWN = 20
"""Candidates that are in the table at once; the others are folded away."""
MOST_NAMED = 5
"""Candidates that a sentence names."""


def search_section(results: Results) -> View | None:
    """All candidates and what tells them apart; None where nothing was searched."""
    search = results.search
    if search is None:
        return None
    ranked = sorted(search.candidates, key=lambda one: _rank(one, search))
    others = ranked[MOST_SHOWN:]
    return View(
        lead=unbroken(visible(_lead(search, results))),
        table=_table(ranked[:MOST_SHOWN], search, "Settings against validation accuracy"),
        others=_table(others, search, "The other candidates") if others else None,
        others_title=f"{count(len(others))} more",
        alike=unbroken(_alike_sentence(search)),
        losses=tuple(unbroken(visible(sentence)) for sentence in _losses(search)),
        importance=_importance(search.importance) if search.importance else None,
        importance_note=unbroken(_importance_note(search)),
        limits=unbroken(_limits(search)),
    )


def search_sentence(results: Results) -> str:
    """That settings were chosen by validation rows, for the first screen; "" without a search."""
    search = results.search
    if search is None:
        return ""
    what = "new trainings on new seeds" if results.trials else "a new training on a new seed"
    return (
        f"The search chose among {count(len(search.candidates))} settings by validation rows; the "
        f"figures on this page are of {what}."
    )


def _lead(search: Search, results: Results) -> str:
    best = _best(search)
    how = (
        "All combinations of the listed values were tried"
        if search.chosen_by == "combinations"
        else "Optuna (TPE) chose them one after the other"
    )
    return (
        f"{plural(len(search.candidates), 'candidate')} "
        f"{which(len(search.candidates), 'was', 'were')} trained on the same rows with seed "
        f"{search.seed}, in {_duration(search, results)}, and scored on the validation rows alone. "
        f"{how}. The run's own trainings have the settings of {best.name}: "
        f"{settings_text(best.settings)}. They are written as a recipe to best.toml in the run's "
        "folder."
    )


def _duration(search: Search, results: Results) -> str:
    """The time of the search; where candidates were side by side, also that of all together."""
    stage = next((one for one in results.stages if one.stage == SEARCH), None)
    if stage is None or stage.duration_s is None or stage.at_once == 1:
        return clock(search.duration_s)
    return (
        f"{clock(stage.duration_s)} (up to {stage.at_once} side by side, "
        f"{clock(search.duration_s)} one after the other)"
    )


def _table(candidates: Sequence[CandidateOutcome], search: Search, caption: str) -> Table:
    keys = list(search.candidates[0].settings)
    names = (
        *("candidate", *keys, "validation accuracy", "compared with the best"),
        *(_test_name(search), "selected epoch", "time"),
    )
    return Table(
        caption,
        tuple(_column(column, keys) for column in columns(*names)),
        tuple(_row(one, search) for one in candidates),
    )


def _column(column: Column, keys: Sequence[str]) -> Column:
    return Column(visible(column.name), column.numeric) if column.name in keys else column


def _test_name(search: Search) -> str:
    over = " over premises" if search.premises is not None else ""
    return f"McNemar test{over}, adjusted"


def _rank(one: CandidateOutcome, search: Search) -> tuple[object, ...]:
    """The best one first, then those that are complete, by accuracy; those that failed last."""
    chosen = one.selection
    order = {"complete": 0, "pruned": 1, "failed": 2}[one.state]
    best = (-chosen.validation_accuracy, chosen.validation_loss) if chosen else (0.0, 0.0)
    return one.name != search.winner, order, *best


def _row(one: CandidateOutcome, search: Search) -> Row:
    chosen, behind = one.selection, one.behind
    accuracy = NOT_MEASURED
    if chosen and one.accuracy_interval:
        accuracy = f"{percent(chosen.validation_accuracy)}\n{interval(one.accuracy_interval)}"
    return row(
        one.name,
        *(visible(setting_text(value)) for value in one.settings.values()),
        accuracy,
        f"{points(-behind.difference)}\n{points_interval(turned(behind.interval))}"
        if behind
        else "",
        "" if one.adjusted_p is None else unbroken(p_value(one.adjusted_p)),
        str(chosen.epoch) if chosen else "none",
        clock(one.duration_s),
        mark=_mark(one, search),
    )


def _mark(one: CandidateOutcome, search: Search) -> str:
    if one.name == search.winner:
        return "chosen"
    return {"complete": "", "pruned": "stopped early", "failed": "failed"}[one.state]


def _alike_sentence(search: Search) -> str:
    compared = [one for one in search.candidates if one.adjusted_p is not None]
    if not compared:
        return "No other candidate was trained to its end, so there is none to compare."
    rows = plural(search.candidates[0].rows, "validation row")
    tests = (
        f"{mcnemar_name(search.premises)} on the same {rows}, Holm-adjusted over "
        f"{plural(len(compared), 'comparison')}"
    )
    if not search.alike:
        return f"All others differ significantly from {search.winner} ({tests})."
    if len(search.alike) == len(compared):
        return (
            f"None of the others is distinguishable from {search.winner} ({tests}): more "
            "validation rows could tell them apart."
        )
    return (
        f"Of the {count(len(compared))} others, {count(len(search.alike))} "
        f"{which(len(search.alike), 'is', 'are')} not distinguishable from {search.winner} "
        f"({tests}): {_named(search.alike)}."
    )


def _named(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return listed([*names[:MOST_NAMED], f"{count(more)} more"] if more > 0 else [*names])


def _losses(search: Search) -> Iterator[str]:
    """The candidates that were stopped, and those that failed with their reason."""
    pruned = [one for one in search.candidates if one.state == "pruned"]
    failed = [one for one in search.candidates if one.state == "failed"]
    if pruned:
        yield (
            "Stopped early, as the best validation accuracy so far was below the median of the "
            f"candidates before: {_named([one.name for one in pruned])}. Figures are those of the "
            "epochs that were done, and enter no comparison."
        )
    for one in failed[:MOST_NAMED]:
        yield f"{one.name.capitalize()} failed and could not be chosen: {one.reason}."
    if len(failed) > MOST_NAMED:
        yield f"So did {count(len(failed) - MOST_NAMED)} more."


def _importance(found: Sequence[Importance]) -> Table:
    return Table(
        "What each setting explains by itself",
        columns("setting", "values compared", "share of the variance", "expected by chance"),
        tuple(
            row(
                visible(one.setting),
                count(one.groups),
                percent(one.share, 0),
                percent(one.by_chance, 0),
                bar=one.share,
            )
            for one in found
        ),
    )


def _importance_note(search: Search) -> str:
    if not search.importance:
        return (
            "How much each setting matters is not measured: that takes at least two complete "
            "candidates for each of its values, and accuracies that differ."
        )
    has_range = any(one.in_thirds for one in search.importance)
    ranged = "; of a range, thirds of the candidates are compared" if has_range else ""
    uneven = (
        " Optuna tries good values more often than others, so the shares hold for its candidates "
        "only."
        if search.chosen_by == "optuna"
        else ""
    )
    return (
        "Share of the variance of the candidates' validation accuracies between the values of a "
        f"setting, whatever the other settings are (eta squared){ranged}. A setting without any "
        f"effect reaches the last column by chance.{uneven}"
    )


def _limits(search: Search) -> str:
    return (
        f"Each candidate was trained once, with one seed, so chance of the training is in its "
        f"figures. The validation accuracy of {search.winner} is the best of "
        f"{count(len(search.candidates))}, and so best partly by chance: it is no estimate of what "
        "these settings reach. The test accuracy of the run's own trainings is."
    )


def turned(bounds: Interval) -> Interval:
    """The interval of a difference the other way round."""
    return Interval(-bounds.high, -bounds.low)


def _best(search: Search) -> CandidateOutcome:
    return next(one for one in search.candidates if one.name == search.winner)
