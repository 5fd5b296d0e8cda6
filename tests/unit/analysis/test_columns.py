"""Further columns of the test rows as slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from statsmodels.stats.multitest import multipletests

from nlijob.analysis.columns import groupings, shown_name
from nlijob.analysis.slices import measure_slices, slices_sentence, too_few_sentence
from nlijob.errors import ConfigurationError
from nlijob.records.job import Example
from nlijob.records.outcome import Slice
from tests.unit.analysis.made import NAMES, answered


def rows(
    columns: Mapping[str, Sequence[str]], number: int = 60, labels: Sequence[int] = (0, 1, 2)
) -> list[Example]:
    """Rows whose columns take these values in turn; "" is none."""
    return [
        Example(
            i,
            f"premise {i}",
            "plays",
            labels[i % len(labels)],
            {name: value for name, own in columns.items() if (value := own[i % len(own)])},
        )
        for i in range(number)
    ]


def chosen(columns: Mapping[str, Sequence[str]], number: int = 60) -> list[str]:
    return [one.column for one in groupings(rows(columns, number))]


def measured(examples: Sequence[Example], hurt: set[int]) -> tuple[Slice, ...]:
    """Slices where the base model is right and the tuned model wrong on the rows `hurt`."""
    gold = [row.label for row in examples]
    tuned = [(label + 1) % 3 if i in hurt else label for i, label in enumerate(gold)]
    return measure_slices(answered(gold, gold), answered(gold, tuned), examples, NAMES)


def test_columns_of_few_values_are_chosen() -> None:
    columns = {"genre": ["fiction", "travel"], "round": ["1", "2", "3", "4"]}
    assert chosen(columns) == ["genre", "round"]


@pytest.mark.parametrize(
    "values",
    [
        [str(i) for i in range(21)],
        [str(i) for i in range(13)],
        ["a text of more than sixty characters, which is no category at all", "b"],
    ],
)
def test_columns_of_many_or_long_values_are_not_chosen(values: list[str]) -> None:
    assert chosen({"c": values}, number=24) == []


@pytest.mark.parametrize("name", ["id", "pairID", "promptID", "row_id", "uid", "Idx", "sentId"])
def test_identifiers_are_not_chosen(name: str) -> None:
    assert chosen({name: ["1", "2"]}) == []


@pytest.mark.parametrize("name", ["valid", "grid", "index of gunning", "GRAMMAR", "paid"])
def test_names_that_only_end_like_identifiers_are_chosen(name: str) -> None:
    assert chosen({name: ["1", "2"]}) == [name]


def test_columns_that_divide_the_rows_alike_are_chosen_once_and_the_gold_label_never() -> None:
    columns = {"label_text": ["e", "n", "c"], "genre": ["a", "b"], "genre_number": ["0", "1"]}
    assert chosen(columns) == ["genre"]


def test_at_most_ten_columns_are_chosen() -> None:
    columns = {f"c{k}": ["a"] * k + ["b"] for k in range(1, 15)}
    assert chosen(columns, number=600) == [f"c{k}" for k in range(1, 11)]


def test_columns_that_are_named_are_taken_in_this_order() -> None:
    examples = rows({"genre": ["a", "b"], "pairID": [str(i) for i in range(30)]})
    assert [one.column for one in groupings(examples, ("pairID", "genre"))] == ["pairID", "genre"]
    assert groupings(examples, ()) == ()


def test_a_named_column_that_is_not_there_is_a_fault_that_lists_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match="the test rows keep no column topic") as caught:
        groupings(rows({"genre": ["a", "b"], "round": ["1", "2", "3"]}), ("topic",))
    assert "they keep genre and round" in caught.value.hint


def test_each_value_is_a_slice_of_its_own_rows() -> None:
    examples = rows({"genre": ["fiction", "travel", "", "fiction"]}, number=60)
    slices = {one.value: one for one in measured(examples, {0, 4}) if one.family == "column"}
    assert {value: one.rows for value, one in slices.items()} == {"fiction": 30, "travel": 15}
    fiction = slices["fiction"]
    assert (fiction.base_correct, fiction.tuned_correct, fiction.broken) == (30, 28, 2)
    assert (fiction.column, fiction.name) == ("genre", "genre: fiction")
    assert fiction.meaning == "the column “genre” is “fiction”"


def test_p_values_are_adjusted_over_the_slices_of_all_kinds_together() -> None:
    examples = rows({"genre": ["fiction", "travel"]})
    slices = measured(examples, {*range(0, 40, 2)})
    assert {"column", "gold label"} <= {one.family for one in slices}
    adjusted = multipletests([one.p for one in slices], method="holm")[1]
    assert [one.adjusted_p for one in slices] == pytest.approx(list(adjusted))


def test_a_slice_that_became_worse_is_named_with_its_column() -> None:
    text = slices_sentence(measured(rows({"genre": ["fiction", "travel"]}), {*range(0, 60, 2)}))
    assert "“genre: fiction” (\N{MINUS SIGN}100.0 points on 30 rows" in text


def test_a_sentence_names_a_dozen_slices_at_most() -> None:
    examples = rows({"round": [f"r{k}" for k in range(20)]}, number=600)
    text = slices_sentence(measured(examples, {*range(600)}))
    assert text.count("“") == 12
    assert text.endswith(" more.")


def test_small_slices_of_columns_are_not_listed_in_the_sentence_on_small_slices() -> None:
    slices = measured(rows({"subcase": [f"s{k}" for k in range(12)]}, number=48), set())
    assert [one.rows for one in slices if one.family == "column"] == [4] * 12
    assert "subcase" not in too_few_sentence(slices)


def test_rows_without_further_columns_have_no_slices_of_them() -> None:
    assert {one.family for one in measured(rows({}), set())} == {"gold label", "word overlap"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("genre", "genre"),
        ("a\n\tb  c", "a b c"),
        ("\u202egenre\x00", "\ufffdgenre\ufffd"),
        ("نوع", "نوع"),
        ("x" * 61, "x" * 59 + "…"),
        ("<b>$x$</b>", "<b>$x$</b>"),
    ],
)
def test_names_are_shown_on_one_line_and_cut(text: str, shown: str) -> None:
    assert shown_name(text) == shown
