"""Conversion of plain data into dataclasses, with names and types checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from nlijob.typed import build, convert


@dataclass(frozen=True)
class Inner:
    names: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Outer:
    size: int
    rate: float = 0.5
    on: bool = False
    kind: Literal["red", "blue"] = "red"
    limit: int | None = None
    inner: Inner = Inner()
    inners: tuple[Inner, ...] = ()
    figure: int | float | str = 0
    size_or_name: float | str | None = None
    table: Inner | int = 0


def faults_of(data: object, where: str = "") -> list[str]:
    faults: list[str] = []
    build(Outer, data, where, faults)
    return faults


def built(**data: Any) -> Outer | None:
    faults: list[str] = []
    outer = build(Outer, data, "", faults)
    assert faults == []
    return outer


def test_a_missing_value_gets_its_default() -> None:
    assert built(size=3) == Outer(3)


def test_lists_become_tuples_and_tables_dataclasses() -> None:
    inner = {"names": ["a", "b"], "counts": {"x": 1}}
    expected = Inner(("a", "b"), {"x": 1})
    assert built(size=1, inner=inner, inners=[inner]) == Outer(
        1, inner=expected, inners=(expected,)
    )


def test_a_whole_number_is_accepted_as_a_number() -> None:
    outer = built(size=1, rate=2)
    assert outer is not None
    assert isinstance(outer.rate, float)


def test_an_optional_value_may_be_none() -> None:
    assert built(size=1, limit=None) == Outer(1)


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("size", "3", "size: expected a whole number, got '3'"),
        ("size", 3.0, "size: expected a whole number, got 3.0"),
        ("size", True, "size: expected a whole number, got True"),
        ("size", None, "size: expected a whole number, got None"),
        ("rate", True, "rate: expected a number, got True"),
        ("rate", "fast", "rate: expected a number, got 'fast'"),
        ("on", 1, "on: expected true or false, got 1"),
        ("kind", "green", "kind: 'green' is none of 'red', 'blue'"),
        ("figure", [1], "figure: expected a whole number or a number or a text, got [1]"),
        ("figure", True, "figure: expected a whole number or a number or a text, got True"),
        ("figure", None, "figure: expected a whole number or a number or a text, got None"),
        ("size_or_name", [], "size_or_name: expected a number or a text, got []"),
        ("limit", "none", "limit: expected a whole number, got 'none'"),
        ("inner", 3, "inner: expected a table of keys, got 3"),
        ("inner", {"names": "a"}, "inner.names: expected a list, got 'a'"),
        ("inner", {"names": ["a", 2]}, "inner.names[1]: expected a text, got 2"),
        ("inner", {"counts": {"x": "y"}}, "inner.counts.x: expected a whole number, got 'y'"),
        ("inners", [{}, {"names": [1]}], "inners[1].names[0]: expected a text, got 1"),
    ],
)
def test_a_value_of_the_wrong_type_is_reported_with_its_path(
    key: str, value: Any, fault: str
) -> None:
    assert faults_of({"size": 1, key: value}) == [fault]


@pytest.mark.parametrize("value", [3, 3.0, "3", -1.5])
def test_a_value_of_a_union_keeps_its_own_type(value: Any) -> None:
    outer = built(size=1, figure=value)
    assert outer is not None
    assert (outer.figure, type(outer.figure)) == (value, type(value))


def test_a_value_becomes_the_first_type_of_a_union_that_accepts_it() -> None:
    assert built(size=1, size_or_name=2, table={"names": ["a"]}) == Outer(
        1, size_or_name=2.0, table=Inner(("a",))
    )


def test_a_tuple_of_fixed_length_is_refused_as_a_type() -> None:
    with pytest.raises(TypeError, match="of any length"):
        convert([1, "a"], tuple[int, str], "pair", [])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(value: float) -> None:
    assert faults_of({"size": 1, "rate": value}) == [f"rate: expected a number, got {value}"]


def test_an_unknown_key_close_to_a_known_one_is_suggested() -> None:
    assert faults_of({"size": 1, "limt": 3}) == ["limt: unknown key; did you mean 'limit'?"]


def test_an_unknown_key_unlike_any_other_lists_the_known_ones() -> None:
    (fault,) = faults_of({"size": 1, "inner": {"zzz": 3}})
    assert fault == "inner.zzz: unknown key; known: names, counts"


def test_every_fault_is_reported() -> None:
    faults = faults_of({"rate": "x", "kind": "y", "inner": {"z": 1}}, "outer")
    assert {fault.partition(":")[0] for fault in faults} == {
        *("outer.size", "outer.rate", "outer.kind", "outer.inner.z")
    }


def test_faulty_values_get_their_default_and_the_others_are_kept() -> None:
    data = {"size": 3, "rate": "x", "inner": {"names": ["a"], "counts": 1, "z": 1}}
    assert build(Outer, data, "", []) == Outer(3, inner=Inner(("a",)))


def test_nothing_is_built_without_a_required_value() -> None:
    assert build(Outer, {"size": "x"}, "", []) is None


def test_a_value_that_is_not_a_table_is_reported() -> None:
    assert faults_of([1, 2], "outer") == ["outer: expected a table of keys, got [1, 2]"]


def test_long_values_are_cut_in_messages() -> None:
    (fault,) = faults_of({"size": "x" * 1000})
    assert len(fault) < 120


def test_a_whole_number_beyond_every_number_is_a_fault() -> None:
    assert faults_of({"size": 1, "rate": 10**400}) == ["rate: the number is too large"]
