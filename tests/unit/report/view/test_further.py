"""What the page shows of further columns and of the annotators' labels."""

from __future__ import annotations

from dataclasses import replace

from nlijob.config import ReportConfig
from nlijob.records.outcome import Results, Slice
from nlijob.report.plots import slice_plots
from nlijob.report.view.parts import View
from nlijob.report.view.slices import SHOWN_COLUMNS, SHOWN_VALUES, slices_section
from tests.synthetic import HOSTILE_COLUMNS, Spec
from tests.unit.report.view.outcomes import outcome

FURTHER = Spec(further=True)


def shown(results: Results, columns: dict[str, int], judged: bool = True) -> View:
    """The section with so many slices of each column, and no others."""
    model = next(one for one in results.slices if one.family == "column" and one.judged)
    p = 0.5 if judged else None
    slices: tuple[Slice, ...] = tuple(
        replace(model, column=column, value=f"v{i}", rows=7, p=p, adjusted_p=p)
        for column, number in columns.items()
        for i in range(number)
    )
    test = replace(results.manifest.splits["test"], further_columns=tuple(columns))
    manifest = replace(results.manifest, splits={**results.manifest.splits, "test": test})
    return slices_section(replace(results, slices=slices, manifest=manifest))


def test_a_run_without_further_columns_shows_nothing_of_them() -> None:
    view = slices_section(outcome(Spec()))
    assert (view.columns, view.more_columns, view.annotators) == ((), (), None)


def test_each_column_has_a_table_of_its_values() -> None:
    results = outcome(FURTHER)
    genre, subcase = slices_section(results).columns
    assert (genre.name, subcase.name) == ("genre", "subcase")
    cells = {row.cells[0]: row.cells for row in genre.table.rows}
    travel = next(one for one in results.slices if one.name == "genre: travel")
    assert cells["travel"][1] == str(travel.rows)
    assert {"fiction", "telephone", "travel"} == {*cells}


def test_slices_of_columns_and_annotators_are_not_in_the_table_and_chart_of_the_texts() -> None:
    plain, further = outcome(Spec()), outcome(FURTHER)
    assert [row.cells[0] for row in slices_section(further).table.rows] != []
    assert {row.cells[0] for row in slices_section(further).table.rows} == {
        row.cells[0] for row in slices_section(plain).table.rows
    }
    assert "genre" not in slice_plots(further)["slices"].svg


def test_further_columns_change_no_figure_but_the_adjusted_p() -> None:
    plain = {one.name: one for one in outcome(Spec()).slices}
    further = {one.name: one for one in outcome(FURTHER).slices}
    for name, one in plain.items():
        assert replace(further[name], adjusted_p=None) == replace(one, adjusted_p=None)
    assert outcome(FURTHER).tuned == outcome(Spec()).tuned


def test_many_values_and_columns_are_folded() -> None:
    view = shown(outcome(FURTHER), {"many": SHOWN_VALUES + 5, **{f"c{i}": 2 for i in range(6)}})
    assert len(view.columns) == SHOWN_COLUMNS
    assert (len(view.more_columns), view.more_columns_title) == (3, "3 more columns")
    many = view.columns[0]
    assert (len(many.table.rows), len(many.more.rows)) == (SHOWN_VALUES, 5)
    assert many.more_title == "5 more values of “many”"
    assert view.columns[1].more_title == ""


def test_values_with_too_few_rows_for_a_test_are_folded_and_say_so() -> None:
    (column,) = shown(outcome(FURTHER), {"rare": 3}, judged=False).columns
    assert column.table.rows == ()
    assert column.more_title == "3 values of “rare”"
    assert {row.cells[-1] for row in column.more.rows} == {"too few rows"}


def test_a_column_says_how_many_rows_have_a_value() -> None:
    (column,) = shown(outcome(FURTHER), {"genre": 2}).columns
    assert column.table.caption == "By “genre”; 14.3 % (14 of 98) of the rows have a value"
    assert slices_section(outcome(FURTHER)).columns[0].table.caption == "By “genre”"


def test_hostile_names_and_values_are_cut_and_cannot_turn_the_text_around() -> None:
    report = ReportConfig(slice_columns=HOSTILE_COLUMNS)
    view = slices_section(outcome(Spec(hostile=True, further=True, report=report)))
    columns = (*view.columns, *view.more_columns)
    assert len(columns) == len(HOSTILE_COLUMNS)
    names = [column.name for column in columns]
    names += [row.cells[0] for column in columns for row in column.table.rows]
    assert "\ufffdgenre" in names
    assert max(map(len, names)) <= 60
    assert not any(mark in name for name in names for mark in "\u202e\u202c\n\t\x01")


def test_a_single_annotator_stands_beside_both_models() -> None:
    results = outcome(FURTHER)
    assert results.annotators is not None
    part = slices_section(results).annotators
    assert [row.cells[0] for row in part.voices.rows] == [
        "base model",
        "tuned model",
        "a single annotator",
    ]
    assert part.voices.rows[1].cells[1].startswith("93.9 %")  # its accuracy
    assert [row.cells[0] for row in part.table.rows] == ["annotators agree", "annotators disagree"]
    assert part.lead.startswith("The source tells what single annotators answered: 490 labels for")


def test_the_notes_say_how_gold_labels_were_made_and_which_rows_are_missing() -> None:
    notes = {note.name: note.value for note in slices_section(outcome(FURTHER)).annotators.notes}
    assert (
        "a gold label is usually made from the annotators' labels"
        in notes["Same as the gold label"]
    )
    assert notes["Rows without a gold label"].startswith("2 rows without a gold label")


def test_rows_with_too_few_annotators_are_told() -> None:
    results = outcome(FURTHER)
    assert results.annotators is not None
    fewer = replace(results, annotators=replace(results.annotators, rows_without=3))
    assert "The other 3 test rows have the labels of fewer than two annotators" in (
        slices_section(fewer).annotators.lead
    )
