"""What a label of the source is read as, and what is refused."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlijob.config import DataConfig
from nlijob.data.labels import LabelReader
from nlijob.errors import NotAvailableError

NAMES = ("entailment", "neutral", "contradiction")


def reader(source_names: dict[int, str] | None = None, **changes: Any) -> LabelReader:
    return LabelReader(DataConfig("data", **changes), source_names or {})


@given(st.permutations(NAMES))
def test_integers_are_read_by_the_names_of_the_source_in_any_order(order: list[str]) -> None:
    labels = reader(dict(enumerate(order)))
    assert [labels.number(i) for i in range(3)] == [NAMES.index(name) for name in order]


@pytest.mark.parametrize("value", [2, 2.0, "2", " 2 ", "2.0", Decimal("2.00")])
def test_any_spelling_of_an_integer_is_read_by_the_names_of_the_source(value: Any) -> None:
    assert reader({0: "neutral", 1: "contradiction", 2: "entailment"}).number(value) == 0


@pytest.mark.parametrize(
    "name", ["not_entailment", "Not-Entailment", "not entailment", " NOT_ENTAILMENT "]
)
def test_names_differ_in_neither_case_nor_blanks_nor_underscores(name: str) -> None:
    binary = ("entailment", "not-entailment")
    assert reader(label_names=binary).number(name) == 1
    assert reader({0: name, 1: "entailment"}, label_names=binary).number(0) == 1


def test_names_of_the_source_may_be_translated_by_the_label_map() -> None:
    label_map = {"supports": 0, "refutes": 2, "not-enough_info": 1}
    labels = reader({0: "REFUTES", 1: "NOT ENOUGH INFO", 2: "SUPPORTS"}, label_map=label_map)
    assert [labels.number(i) for i in range(3)] == [2, 1, 0]


def test_a_label_map_of_numbers_wins_over_the_names_of_the_source() -> None:
    labels = reader({0: "contradiction", 1: "neutral", 2: "yes"}, label_map={"2": 0})
    assert [labels.number(i) for i in range(3)] == [2, 1, 0]


def test_names_that_nobody_knows_are_refused_with_what_to_set() -> None:
    with pytest.raises(NotAvailableError) as caught:
        reader({0: "entailment", 1: "undecided", 2: "refutes"})
    assert "names its labels 'entailment', 'undecided' and 'refutes'" in caught.value.message
    assert "do not know 'undecided' and 'refutes'" in caught.value.message
    assert "--set 'data.label_map={\"undecided\" = 0}'" in caught.value.hint


def test_an_integer_beyond_the_names_of_the_source_is_unknown() -> None:
    assert reader({0: "neutral", 1: "entailment"}).number(2) is None


def test_a_source_may_name_its_labels_by_digits() -> None:
    labels = reader({0: "-1", 1: "2", 2: "0"})
    assert [labels.number(i) for i in range(3)] == [-1, 2, 0]


def test_numbers_as_names_name_nothing() -> None:
    labels = reader({0: "0", 1: "1", 2: "2"})
    assert labels.number(1) == 1
    assert labels.how() == "the source names no labels; 1 was read as neutral"


@pytest.mark.parametrize("value", [-1, -1.0, "-1", "-1.0", "-", None, math.nan, "", "  "])
def test_missing_labels_are_unlabelled(value: Any) -> None:
    assert reader().number(value) == -1
    assert reader({0: "contradiction", 1: "neutral", 2: "entailment"}).number(value) == -1


@pytest.mark.parametrize(("value", "label"), [(1, 1), (1.0, 1), ("1", 1), ("1.0", 1), ("01", 1)])
def test_whole_numbers_are_read_in_the_order_of_label_names(value: Any, label: int) -> None:
    assert reader().number(value) == label


@pytest.mark.parametrize(
    "value",
    [
        *(3, -2, 1.5, math.inf, 10**400, "9" * 5000, "-" * 40, "1_0", "1e0", "1,0", "0x1"),
        *("٣", "²", "１", "nan", "None", "true", True, False, [1], {"a": 1}, b"1"),
    ],
)
def test_anything_else_is_unknown(value: Any) -> None:
    assert reader().number(value) is None


def test_a_label_map_may_give_other_values_their_meaning() -> None:
    labels = reader(label_map={"True": 0, "false": 2, "nan": 1, "-2": -1})
    assert [labels.number(value) for value in (True, False, math.nan, -2)] == [0, 2, 1, -1]


def test_it_is_told_how_integers_were_read_by_names() -> None:
    labels = reader({0: "contradiction", 1: "neutral", 2: "entailment"})
    for value in (2, 0, -1):
        labels.number(value)
    assert labels.how() == (
        "integer labels read by the names that the source carries: "
        "0 = contradiction, 2 = entailment"
    )


def test_it_is_told_how_integers_without_names_were_read() -> None:
    labels = reader()
    for value in (2, "0", 1.0):
        labels.number(value)
    assert labels.how() == (
        "the source names no labels; 0, 1 and 2 were read as entailment, neutral and contradiction"
    )


def test_it_is_told_that_labels_are_names_or_mapped() -> None:
    labels = reader(label_map={"7": 2})
    for value in ("neutral", 7):
        labels.number(value)
    labels.number(0)
    assert labels.how() == (
        "the source names no integer labels; 0 was read as entailment; "
        "integer labels read by data.label_map: 7 = contradiction; labels given by name"
    )
