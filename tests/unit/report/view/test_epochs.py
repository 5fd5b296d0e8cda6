"""The section on epochs."""

from __future__ import annotations

from nlijob.report.view.epochs import epochs_section
from tests.synthetic import Spec
from tests.unit.report.view.outcomes import outcome


def test_only_the_selected_epoch_is_marked() -> None:
    results = outcome(Spec())
    marked = [row.cells[0] for row in epochs_section(results).table.rows if row.mark]
    assert marked == [str(results.selection.epoch)]


def test_test_accuracy_by_epoch_is_marked_as_information() -> None:
    names = [column.name for column in epochs_section(outcome(Spec())).table.columns]
    assert "test accuracy (information only)" in names
