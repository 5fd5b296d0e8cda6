"""Accuracy before and after tuning in slices of the test rows."""

from __future__ import annotations

from collections.abc import Sequence

from nlijob.analysis.columns import shown_name
from nlijob.analysis.slices import COLUMN, OF_THE_SOURCE, slices_sentence, too_few_sentence
from nlijob.analysis.wording import plural, share_of, which
from nlijob.records.outcome import Results, Slice
from nlijob.report.view.annotators import annotators_part
from nlijob.report.view.parts import View
from nlijob.report.view.slice_table import slices_table
from nlijob.report.view.text import unbroken, visible

SHOWN_VALUES = 8
"""Most values in a table that is open; the others are in one that opens."""
SHOWN_COLUMNS = 4
"""Most columns with a table that is open."""


def slices_section(results: Results) -> View:
    """All slices that contain test rows."""
    of_texts = [one for one in results.slices if one.family not in OF_THE_SOURCE]
    by_column = _by_column(results)
    return View(
        lead=unbroken(visible(slices_sentence(results.slices))),
        table=slices_table(
            "Accuracy before and after, by slice",
            "slice",
            [(one.name, one) for one in of_texts if one.judged],
            results.manifest.label_names,
        ),
        too_few=unbroken(visible(too_few_sentence(results.slices))),
        meanings=tuple((visible(one.name), visible(one.meaning)) for one in of_texts),
        columns=by_column[:SHOWN_COLUMNS],
        more_columns=by_column[SHOWN_COLUMNS:],
        more_columns_title=plural(max(0, len(by_column) - SHOWN_COLUMNS), "more column"),
        annotators=annotators_part(results),
    )


def _by_column(results: Results) -> tuple[View, ...]:
    """A table for each further column, in the order of the source."""
    values: dict[str, list[Slice]] = {}
    for one in results.slices:
        if one.family == COLUMN:
            values.setdefault(one.column, []).append(one)
    order = results.manifest.splits["test"].further_columns
    return tuple(_column(column, values[column], results) for column in order if column in values)


def _column(column: str, slices: Sequence[Slice], results: Results) -> View:
    """The values with enough rows for a test, the first ones open; all others in a fold."""
    test_rows, label_names = results.tuned.rows, results.manifest.label_names
    name, rows = shown_name(column), sum(one.rows for one in slices)
    named = [(shown_name(one.value), one) for one in slices]
    shown = sum(one.judged for one in slices[:SHOWN_VALUES])  # these come first
    caption = f"By “{name}”"
    if rows < test_rows:
        caption += f"; {share_of(rows, test_rows)} of the rows {which(rows, 'has', 'have')} a value"
    more = plural(len(named) - shown, f"{'more ' if shown else ''}value")
    return View(
        name=name,
        table=slices_table(caption, name, named[:shown], label_names),
        more=slices_table(
            f"{caption}, other values" if shown else caption, name, named[shown:], label_names
        ),
        more_title=f"{more} of “{name}”" if shown < len(named) else "",
    )
