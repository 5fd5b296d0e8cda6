"""Both models on the further test sets: does the gain hold on other data?"""

from __future__ import annotations

from collections.abc import Sequence

from nlijob.analysis.columns import shown_name
from nlijob.analysis.slices import COLUMN
from nlijob.analysis.transfer import carries_over
from nlijob.analysis.wording import (
    count,
    listed,
    p_value,
    percent,
    plural,
    points,
    points_interval,
    share_of,
    with_interval,
)
from nlijob.records.intervals import PairedDifference
from nlijob.records.outcome import SIGNIFICANT, Results, Slice, TransferResult, TransferTrial
from nlijob.report.view.parts import Table, View, columns, row
from nlijob.report.view.slice_table import slices_table
from nlijob.report.view.text import unbroken, visible

SHOWN_VALUES = 12
"""Most values in a table that is open; the others are in one that opens."""
NONE = (
    "Whether the gain holds on other data is not known, because no further test set was named. A "
    "recipe names one as below. If the run is then continued, both models are scored on the set, "
    "and nothing is trained again."
)
EXAMPLE = """\
[[transfer]]
name = "other"
dataset = "DATASET"  # a name on the hub, a folder or a file
split = "test\""""
MARKS = {"gain": "helped", "loss": "hurt", "unclear": ""}


def transfer_section(results: Results) -> View:
    """All further test sets."""
    own = own_change(results)
    sets = results.transfer
    return View(
        lead=_lead(results) if sets else NONE,
        table=_overview(results, own) if sets else None,
        sets=tuple(_set(results, one, own) for one in sets),
        example="" if sets else EXAMPLE,
    )


def transfer_lines(results: Results) -> tuple[str, ...]:
    """A line on each further test set, for a summary."""
    return tuple(
        visible(
            f"elsewhere, {one.manifest.name}: {percent(one.base.accuracy)} → "
            f"{percent(one.tuned.accuracy)} of {plural(one.rows, 'row')}. "
            f"{carries_over(one, own_change(results))}"
        )
        for one in results.transfer
    )


def own_change(results: Results) -> PairedDifference:
    """The change on the run's own test rows."""
    cases = results.cases
    return PairedDifference(
        gained=cases.corrected,
        lost=cases.newly_broken,
        difference=results.gain,
        interval=results.gain_interval,
        mcnemar_p=results.mcnemar_p,
    )


def _lead(results: Results) -> str:
    number = len(results.transfer)
    carried = _number(sum(one.verdict == "gain" for one in results.transfer))
    return (
        f"Both models were scored on {plural(number, 'further test set')}, which played no part in "
        f"training or selection. Tuning made the model better beyond chance on {carried} of "
        f"{count(number)}; the run's own test rows changed by {points(results.gain)}."
    )


def _overview(results: Results, own: PairedDifference) -> Table:
    before, after = results.base, results.tuned
    here = row(
        "own test rows",
        count(after.rows),
        with_interval(before.accuracy, before.accuracy_interval),
        with_interval(after.accuracy, after.accuracy_interval),
        points(own.difference),
        points_interval(own.interval),
        unbroken(p_value(own.mcnemar_p)),
        mark=("helped" if own.difference > 0 else "hurt") if own.mcnemar_p < SIGNIFICANT else "",
    )
    there = (
        row(
            visible(one.manifest.name),
            count(one.rows),
            with_interval(one.base.accuracy, one.base.accuracy_interval),
            with_interval(one.tuned.accuracy, one.tuned.accuracy_interval),
            points(one.change.difference),
            points_interval(one.change.interval),
            unbroken(p_value(one.adjusted_p)),
            mark=MARKS[one.verdict],
        )
        for one in results.transfer
    )
    return Table(
        "Accuracy before and after, here and elsewhere",
        columns("rows of", "rows", "before", "after", "change", "95 % interval", "p"),
        (here, *there),
    )


def _set(results: Results, one: TransferResult, own: PairedDifference) -> View:
    by_column = _by_column(one)
    return View(
        name=visible(one.manifest.name),
        verdict=unbroken(visible(carries_over(one, own))),
        rows=visible(_rows(one)),
        labels=visible(_labels(results, one)),
        seen=_seen(one),
        trials=_trials_sentence(one.trials),
        by_label=slices_table(
            f"{one.manifest.name}, by gold label (recall)",
            "label",
            [(label.key, label) for label in one.slices if label.family != COLUMN],
        ),
        columns=by_column,
        trainings=_trials_table(one),
    )


def _rows(one: TransferResult) -> str:
    manifest = one.manifest
    split = manifest.source_split
    source = manifest.dataset + (f", split {split}" if split != "test" else "")
    if manifest.rows.origin:
        source += f" ({manifest.rows.origin})"
    left_out = [
        f"{plural(number, 'row')} {why}"
        for number, why in (
            (manifest.rows.unlabelled_dropped, "without a gold label"),
            (one.too_long, "too long for the model"),
        )
        if number
    ]
    without = f"; left out: {listed(left_out)}" if left_out else ""
    rule = manifest.rows.rule
    if manifest.rows.selected < manifest.rows.source_rows:
        rule += f" of {count(manifest.rows.source_rows)}"
    return (
        f"{plural(one.rows, 'row')} ({rule}) of {source}{without}. Always "
        f"answering the most frequent label would be right for {percent(one.majority)}."
    )


def _labels(results: Results, one: TransferResult) -> str:
    """For which label of the set each answer counts; "" where they are the same."""
    model, names = results.manifest.label_names, one.manifest.label_names
    if tuple(names[number] for number in one.manifest.answers) == tuple(model):
        return ""
    pairs = [
        f"{label} counts as {names[number]}"
        for label, number in zip(model, one.manifest.answers, strict=True)
    ]
    text = f"The set's labels are {listed([*names])}. Of the model's answers, {listed(pairs)}."
    if len({*one.manifest.answers}) == len(model):
        return text
    before, after = (score.correct_by_sum / one.rows for score in (one.base, one.tuned))
    return (
        f"{text} The most probable answer counts. If the probabilities of answers that count for "
        f"the same label were added up, accuracy would be {percent(before)} before and "
        f"{percent(after)} after."
    )


def _seen(one: TransferResult) -> str:
    seen, rows = one.manifest.in_training, one.manifest.rows.rows
    if not seen.rows_with_premise:
        return "No row of the set has a premise that stands in training."
    return (
        f"Premises that stand in training: {share_of(seen.rows_with_premise, rows)} of the rows; "
        f"whole rows: {share_of(seen.whole_rows, rows)}."
    )


def _trials_sentence(trials: Sequence[TransferTrial]) -> str:
    """What several trainings say; "" where there is one."""
    if not trials:
        return ""
    gains = [trial.change.difference for trial in trials]
    beyond = [trial for trial in trials if trial.change.mcnemar_p < SIGNIFICANT]
    better = sum(trial.change.difference > 0 for trial in beyond)
    worse, mean = len(beyond) - better, sum(gains) / len(gains)
    return unbroken(
        f"Over {plural(len(trials), 'training')} the change is {points(mean)} on average, from "
        f"{points(min(gains))} to {points(max(gains))}; {_number(better)} made the "
        f"model better and {_number(worse)} worse beyond chance. All other figures are of the "
        "training whose adapter is kept."
    )


def _number(found: int) -> str:
    return count(found) if found else "none"


def _trials_table(one: TransferResult) -> Table:
    return Table(
        f"{one.manifest.name}, by training",
        columns("training", "after", "change", "95 % interval", "p"),
        tuple(
            row(
                f"seed {trial.seed}",
                percent(trial.accuracy),
                points(trial.change.difference),
                points_interval(trial.change.interval),
                unbroken(p_value(trial.change.mcnemar_p)),
            )
            for trial in one.trials
        ),
    )


def _by_column(one: TransferResult) -> tuple[View, ...]:
    """A table for each further column, in the order of the source."""
    values: dict[str, list[Slice]] = {}
    for found in one.slices:
        if found.family == COLUMN:
            values.setdefault(found.column, []).append(found)
    order = one.manifest.rows.further_columns
    name = one.manifest.name
    return tuple(_column(name, column, values[column]) for column in order if column in values)


def _column(of_set: str, column: str, slices: Sequence[Slice]) -> View:
    """The values with enough rows for a test, the first ones open; all others in a fold."""
    name = shown_name(column)
    named = [(shown_name(one.value), one) for one in slices]
    shown = sum(one.judged for one in slices[:SHOWN_VALUES])  # these come first
    caption = f"{of_set}, by “{name}”"
    more = plural(len(named) - shown, f"{'more ' if shown else ''}value")
    return View(
        table=slices_table(caption, name, named[:shown]),
        more=slices_table(f"{caption}, other values" if shown else caption, name, named[shown:]),
        more_title=f"{more} of “{name}”" if shown < len(named) else "",
    )
