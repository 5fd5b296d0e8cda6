"""A table of slices, for the sections that show some."""

from __future__ import annotations

from collections.abc import Sequence

from nlijob.analysis.wording import count, p_value, points, points_interval, with_interval
from nlijob.records.outcome import Slice
from nlijob.report.view.case_links import slice_link
from nlijob.report.view.parts import CaseLink, Row, Table, columns, row
from nlijob.report.view.text import unbroken, visible


def slices_table(
    caption: str,
    what: str,
    slices: Sequence[tuple[str, Slice]],
    label_names: Sequence[str] | None = None,
) -> Table:
    """Slices by the names that they have in this table.

    They lead to their failure cases if the names of the labels are given.
    """
    return Table(
        caption,
        columns(what, "rows", "before", "after", "change", "95 % interval", "adjusted p"),
        tuple(
            _row(name, one, slice_link(one, label_names) if label_names else None)
            for name, one in slices
        ),
    )


def _row(name: str, one: Slice, cases: CaseLink | None) -> Row:
    return row(
        visible(name),
        count(one.rows),
        with_interval(one.base_correct / one.rows, one.base_interval),
        with_interval(one.tuned_correct / one.rows, one.tuned_interval),
        points(one.change),
        points_interval(one.change_interval),
        "too few rows" if one.adjusted_p is None else unbroken(p_value(one.adjusted_p)),
        mark=("helped" if one.change > 0 else "hurt") if one.is_significant else "",
        cases=cases,
    )
