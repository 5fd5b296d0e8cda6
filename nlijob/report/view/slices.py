"""Accuracy before and after tuning in slices of the test rows."""

from __future__ import annotations

from nlijob.analysis.slices import slices_sentence, too_few_sentence
from nlijob.analysis.wording import count, p_value, points, points_interval, with_interval
from nlijob.records.outcome import Results, Slice
from nlijob.report.view.parts import Row, Table, View, columns, row
from nlijob.report.view.text import unbroken, visible


def slices_section(results: Results) -> View:
    """All slices that contain test rows."""
    return View(
        lead=unbroken(visible(slices_sentence(results.slices))),
        table=Table(
            "Accuracy before and after, by slice",
            columns("slice", "rows", "before", "after", "change", "95 % interval", "adjusted p"),
            tuple(_row(one) for one in results.slices if one.judged),
        ),
        too_few=unbroken(visible(too_few_sentence(results.slices))),
        meanings=tuple((visible(one.name), visible(one.meaning)) for one in results.slices),
    )


def _row(one: Slice) -> Row:
    return row(
        visible(one.name),
        count(one.rows),
        with_interval(one.base_correct / one.rows, one.base_interval),
        with_interval(one.tuned_correct / one.rows, one.tuned_interval),
        points(one.change),
        points_interval(one.change_interval),
        "" if one.adjusted_p is None else unbroken(p_value(one.adjusted_p)),
        mark=("helped" if one.change > 0 else "hurt") if one.is_significant else "",
    )
