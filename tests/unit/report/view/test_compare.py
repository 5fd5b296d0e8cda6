"""The comparison claims no more than its figures support."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from nlijob.analysis.comparison import ComparedRun, LabelledRow, compare
from nlijob.records.outcome import Results
from nlijob.report.view.compare import SHOWN_FLIPS, compare_page
from nlijob.report.view.parts import View
from tests.synthetic import Spec
from tests.unit.analysis.made import trainings
from tests.unit.analysis.test_comparison import of_trainings, rights, row
from tests.unit.report.view.outcomes import outcome


def page(*of_runs: Sequence[LabelledRow], results: Sequence[Results] = ()) -> View:
    outcomes = results or [outcome(Spec())] * len(of_runs)
    runs = [
        ComparedRun(name, one, tuple(rows))
        for name, one, rows in zip("abcdef", outcomes, of_runs, strict=False)
    ]
    return compare_page(compare(runs), {"a": "./a/report.html"}, "compare.json", "0.1.0")


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("first", "second", "sentence", "tone"),
    [
        ("0" * 10 + "1" * 5, "1" * 15, "“b” is correct more often than “a”: 100.0 %", "better"),
        ("1" * 15, "0" * 10 + "1" * 5, "“b” is correct less often than “a”: 33.3 %", "worse"),
        ("1100", "1110", "“b” (75.0 %) is not distinguishable from “a” (50.0 %)", "unclear"),
        (
            "1100",
            "1100",
            "4 common test rows, “b” and “a” are correct on exactly the same",
            "unclear",
        ),
        ("1100", "0011", "correct equally often (50.0 %), but not on the same", "unclear"),
    ],
)
def test_the_sentence_is_as_strong_as_the_test(
    first: str, second: str, sentence: str, tone: str
) -> None:
    (pair,) = page(rights(first), rights(second)).pairs
    assert sentence in plain(pair.sentence)
    assert pair.tone == tone


def test_a_difference_significant_alone_is_not_claimed_among_three_tests() -> None:
    better, same = rights("1" * 20), rights("0" * 6 + "1" * 14)
    alone = page(same, better)
    among = page(same, better, same, same)
    assert "more often" in alone.pairs[0].sentence
    assert "not distinguishable" in among.pairs[0].sentence
    assert "Holm-adjusted" in among.pairs[0].note
    assert "after Holm’s" in among.holm or "Holm's correction for 3" in among.holm
    assert "Holm" not in alone.pairs[0].note
    assert alone.holm == ""


def test_the_note_has_difference_interval_test_and_counts() -> None:
    (pair,) = page(rights("1100"), rights("1110")).pairs
    assert re.search(
        r"\+25\.0 points \(95 % interval −\d+\.\d to \+\d+\.\d; exact McNemar test, p = 1\.000\)\. "
        r"Only “b” is correct on 1 row, only “a” on 0",
        plain(pair.note),
    )


def test_the_number_of_common_rows_is_stated() -> None:
    whole = page(rights("110"), rights("111")).pairs[0]
    some = page(rights("1101"), rights("111")).pairs[0]
    none = page([row(0)], [row(0, premise="other")]).pairs[0]
    assert whole.rows == "Both runs were scored on the same 3 test rows."
    assert some.rows.startswith("3 of the 3 test rows of “b” and the 4 of “a” are in both runs")
    assert "no paired test was made" in none.rows
    assert "no test row in common" in none.sentence
    assert none.table is None
    assert none.flips == ()


def test_runs_on_different_test_rows_get_a_caution() -> None:
    other = outcome(Spec(seed=12))
    assert page(rights("1"), rights("1")).other_rows == ""
    assert (
        "Not all runs"
        in page(rights("1"), rights("1"), results=[outcome(Spec()), other]).other_rows
    )


def test_differences_between_base_models_are_described() -> None:
    same = page(rights("11"), rights("11")).pairs[0].base
    shifted = row(1, base_probabilities={"neutral": 0.9, "entailment": 0.1, "contradiction": 0})
    close = page(rights("11"), [row(0), shifted]).pairs[0].base
    unlike = page(rights("11"), [row(0), row(1, base="entailment")]).pairs[0].base
    assert "the same answers and probabilities" in same
    assert "the same answers" in close
    assert "differs by up to 0.20" in close
    assert "answered 1 of the 2 common rows differently (0 correct only in “b”, 1 only" in unlike
    assert "Both runs use the same model" in unlike


def test_the_list_of_rows_is_cut_and_says_so() -> None:
    number = SHOWN_FLIPS + 1
    group = page(rights("0" * number), rights("1" * number)).pairs[0].flips[0]
    assert len(group.flips) == SHOWN_FLIPS
    assert group.lead.startswith(f"{SHOWN_FLIPS} of {number} shown")
    assert "compare.json contains all" in group.lead


def test_the_table_of_rows_adds_up() -> None:
    table = page(rights("1100"), rights("1010")).pairs[0].table
    assert table is not None
    assert [line.cells[1:] for line in table.rows] == [("25.0 % (1 of 4)", "25.0 % (1 of 4)")] * 2


def test_figures_are_side_by_side() -> None:
    results = [outcome(Spec()), outcome(Spec(gpu=False, lora_r=64))]
    found = page(rights("1"), rights("1"), results=results)
    figures = {line.cells[0]: line.cells[1:] for line in found.figures.rows}
    assert figures["GPU energy"][1] == figures["peak GPU memory"][1] == "no GPU"
    assert figures["cost"] == ("no price given",) * 2
    assert figures["gate"] == ("none", "none")
    assert found.configuration is not None
    assert ("lora.r", "32", "64") in [line.cells for line in found.configuration.rows]
    assert found.environment is not None
    assert found.data is None


def test_without_differences_there_is_no_table() -> None:
    found = page(rights("1"), rights("1"))
    assert (found.configuration, found.data, found.environment) == (None, None, None)


def test_a_run_without_a_report_has_no_link() -> None:
    assert [run.href for run in page(rights("1"), rights("1")).runs] == ["./a/report.html", ""]


def test_control_characters_are_shown() -> None:
    one = page(rights("0"), [replace(row(0), premise="premise 0")])
    flips = page([row(0, False, premise="a\x01")], [row(0, premise="a\x01")]).pairs[0].flips
    assert flips[0].flips[0].premise == "a␁"
    assert one.pairs


# ---------------------------------------------------------------- several trainings


def test_means_of_several_trainings_are_compared_and_the_scope_is_said() -> None:
    found = page(of_trainings(0.5, 0.55, 0.6), of_trainings(0.9, 0.85, 0.9, seed=1))
    (pair,) = found.pairs
    sentence, note = plain(pair.sentence), plain(pair.note)
    assert "“b” is correct more often than “a”: 8" in sentence
    assert "the mean of 3 trainings, versus 5" in sentence
    assert pair.tone == "better"
    assert "test over trainings and rows, p" in note
    assert "covers other rows of this kind and other trainings of both recipes." in note
    assert "wide" not in note
    assert "means over all of them" in found.scope
    assert "different seed" not in found.scope
    assert pair.table is not None
    assert "of the trainings whose adapters are kept" in pair.table.caption


def test_a_run_with_one_training_leaves_open_what_another_would_bring() -> None:
    (pair,) = page(of_trainings(0.7), of_trainings(0.7, 0.72, seed=1)).pairs
    assert "its one training" in plain(pair.sentence)
    note = plain(pair.note)
    assert "other trainings of “b”, but “a” has one training, and what another one would" in note
    assert "2 trainings tell little about how much trainings differ" in note


def test_runs_with_one_training_each_are_said_to_differ_by_a_seed_alone() -> None:
    assert "a different seed alone" in page(rights("1"), rights("1")).scope


def test_the_side_by_side_table_has_mean_and_range_of_the_trainings() -> None:
    several = replace(outcome(Spec()), trials=trainings((0.7, 0.8, 0.75)))
    names = [line.cells[0] for line in page(rights("1"), rights("1")).figures.rows]
    assert not any("training" in name and "mean" in name for name in names)
    table = page(rights("1"), rights("1"), results=[several, outcome(Spec())]).figures
    lines = {plain(line.cells[0]): [plain(c) for c in line.cells[1:]] for line in table.rows}
    assert lines["trainings"] == ["3", "1"]
    assert several.trials is not None
    expected = several.trials.accuracy
    mean, alone = lines["accuracy after, mean of the trainings"]
    assert mean.startswith(f"{100 * expected.mean:.1f} % (")
    assert alone == "one training"
    assert lines["accuracy after, lowest to highest"][0] == (
        f"{100 * expected.lowest:.1f} to {100 * expected.highest:.1f} %"
    )
    assert "accuracy after, kept adapter" in lines


# ---------------------------------------------------------------- each with each


def test_the_matrix_says_who_differs_from_whom() -> None:
    good, bad = rights("1" * 30), rights("0" * 15 + "1" * 15)
    matrix = page(good, bad, good).matrix
    assert [[cell.tone for cell in one.cells] for one in matrix.rows] == [
        ["self", "better", "unclear"],
        ["worse", "self", "worse"],
        ["unclear", "better", "self"],
    ]
    cell = matrix.rows[1].cells[2]
    assert (cell.mark, plain(cell.text), plain(cell.note)) == ("▼", "−50.0", "p < 0.001")
    assert matrix.outcome == "2 of 3 pairs differ significantly in accuracy."
    assert "corrected for all 3 pairs" in plain(matrix.note)


def test_runs_that_do_not_differ_are_said_not_to() -> None:
    matrix = page(*[rights("1100")] * 3).matrix
    assert matrix.outcome == "No two runs differ significantly in accuracy (3 pairs)."


def test_two_runs_have_no_matrix() -> None:
    found = page(rights("10"), rights("11"))
    assert found.matrix is None
    assert "matrix" not in dict(found.contents)


def test_runs_without_common_rows_have_no_figure_in_the_matrix() -> None:
    far = [row(0, premise="of another data set")]
    cell = page(rights("1100"), rights("1110"), far).matrix.rows[0].cells[2]
    assert (cell.text, cell.note, cell.tone) == ("no common row", "", "unclear")


def test_all_flipped_rows_can_be_saved_and_a_text_is_in_the_page_once() -> None:
    many = SHOWN_FLIPS + 5
    found = json.loads(page(rights("0" * many), *[rights("1" * many)] * 2).flips)
    assert len(found["rows"]) == many
    assert [len(pair["flips"]) for pair in found["pairs"]] == [many, many]
    place, before, after, gap = found["pairs"][1]["flips"][0]
    assert found["rows"][place][1:] == [f"premise {place}", f"hypothesis {place}", "neutral"]
    assert (before, after, gap) == ("entailment", "neutral", pytest.approx(0.8))
