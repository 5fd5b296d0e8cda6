"""The labels of single annotators, in the forms in which corpora carry them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from nlijob.config import DataConfig
from nlijob.data.annotators import AnnotatorLabels
from nlijob.data.beyond import Beyond
from nlijob.data.meaning import Meaning
from nlijob.errors import NotAvailableError
from nlijob.records.job import Example
from nlijob.records.serialization import dump_line, from_json
from tests.unit.data.test_further import build, source_rows, write

USED = frozenset({"premise", "hypothesis", "label"})
E, N, C = "entailment", "neutral", "contradiction"


def settled(
    rows: Sequence[dict[str, Any]], gold: int = 1, **changes: Any
) -> tuple[list[tuple[int, ...]], tuple[str, ...], list[str]]:
    """Votes of each row, the columns that they were read from, and warnings."""
    labels, meaning = AnnotatorLabels(), Meaning(DataConfig("d", **changes), "label", USED, {})
    examples = [
        Example(i, "p", "h", gold, votes=labels.of(row, meaning)) for i, row in enumerate(rows)
    ]
    found, warnings = labels.settled(examples)
    return [row.votes for row in found], labels.columns, warnings


def votes(row: dict[str, Any], **changes: Any) -> tuple[int, ...]:
    return settled([row], **changes)[0][0]


@pytest.mark.parametrize(
    "value",
    [
        [N, N, E],
        (N, E, N),
        ["Neutral", "ENTAILMENT", " neutral", "", None, "-"],
        [1, 1, 0],
        ["1", 1.0, 0],
        '["neutral", "neutral", "entailment"]',
        "['neutral', 'neutral', 'entailment']",
        "['neutral' 'neutral' 'entailment']",
        "[neutral, neutral, entailment]",
        "neutral, neutral, entailment",
        "neutral|entailment|neutral",
        "neutral entailment neutral",
        "1;1;0",
        {"neutral": 2, "entailment": 1},
        {"neutral": 2.0, "entailment": 1, "contradiction": None},
        "{'neutral': 2, 'entailment': 1}",
    ],
)
def test_a_column_with_the_labels_of_all_annotators_is_read(value: Any) -> None:
    assert votes({"annotator_labels": value}) == (1, 2, 0)


@pytest.mark.parametrize(
    "name", ["annotator_labels", "annotatorLabels", "Annotations", "label_counter", "old_labels"]
)
def test_such_a_column_is_found_by_its_name(name: str) -> None:
    assert settled([{name: [N, N]}])[1] == (name,)


@pytest.mark.parametrize(
    "names",
    [
        ("label1", "label2", "label3"),
        ("label_1", "label_2", "label_3"),
        ("annotator_1", "annotator_2", "annotator_3"),
        ("Annotator 0 label", "Annotator 1 label", "Annotator 2 label"),
    ],
)
def test_a_column_for_each_annotator_is_found_by_its_name(names: tuple[str, ...]) -> None:
    row = dict(zip(names, (N, E, N), strict=True))
    assert settled([{"pairID": "1", **row, "genre": "travel"}]) == ([(1, 2, 0)], names, [])


def test_labels_that_are_there_in_both_forms_count_once() -> None:
    row = {"label1": N, "label2": E, "label3": N, "annotator_labels": [N, E, N]}
    assert settled([row])[:2] == ([(1, 2, 0)], ("annotator_labels",))


def test_a_column_that_only_has_the_name_does_not_hide_the_labels() -> None:
    row = {"annotations": ["a span", "another"], "label1": N, "label2": N}
    assert settled([row])[:2] == ([(0, 2, 0)], ("label1", "label2"))


def test_rows_may_have_the_labels_of_different_numbers_of_annotators() -> None:
    rows = [{"label1": N, "label2": "", "label3": ""}, {"label1": N, "label2": C, "label3": N}]
    assert settled(rows)[0] == [(0, 1, 0), (0, 2, 1)]


def test_other_spellings_are_translated_by_the_label_map() -> None:
    row = {"annotator_labels": ["maybe", "maybe", "yes"]}
    assert votes(row, label_map={"maybe": 1, "yes": 0}) == (1, 2, 0)


def test_integers_mean_what_they_mean_in_the_column_of_the_gold_label() -> None:
    meaning = Meaning(DataConfig("d"), "label", USED, {"label": {0: C, 1: N, 2: E}})
    assert AnnotatorLabels().of({"annotator_labels": [0, 0, 2]}, meaning) == (1, 0, 2)


@pytest.mark.parametrize(
    "row",
    [
        {"genre": "travel", "annotator": "7"},
        {"label1": N},
        {"raw_label": N},
        {"label1": 0.83, "label2": 0.1, "label3": 0.07},
        {"label_0": 0, "label_1": 1, "label_2": 0},
        {"annotations": "seen by an expert, no remarks"},
        {"annotations": [{"worker": 3}, {"worker": 4}]},
        {"label_counter": {"neutral": -1, "entailment": float("inf")}},
        {"votes": {"neutral": 10**9}},
    ],
)
def test_other_columns_are_not_taken_for_annotators(row: dict[str, Any]) -> None:
    assert settled([row]) == ([()], (), [])


def test_labels_that_are_mostly_readable_are_left_out_with_a_warning() -> None:
    found, columns, (warning,) = settled([{"annotator_labels": [N, N, "perhaps"]}])
    assert (found, columns) == ([()], ())
    assert "column 'annotator_labels' has 'perhaps', which is no label" in warning


def test_labels_that_contradict_most_gold_labels_are_left_out_with_a_warning() -> None:
    found, _, (warning,) = settled([{"label1": E, "label2": E}] * 3, gold=1)
    assert found == [()] * 3
    assert "in 3 of 3 rows the gold label is not the most frequent label" in warning


def test_columns_are_taken_as_they_are_named() -> None:
    row = {"ann": E, "bob": E, "label1": N, "label2": N}
    found = settled([row], gold=1, annotator_columns=("ann", "bob"))
    assert found == ([(2, 0, 0)], ("ann", "bob"), [])


def test_an_empty_list_turns_it_off() -> None:
    assert settled([{"annotator_labels": [N, N]}], annotator_columns=()) == ([()], (), [])


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"ann": E}, "no row has a column 'bob'"),
        ({"ann": E, "bob": "perhaps"}, "column 'bob' has 'perhaps', which is no label"),
        ({"ann": E, "bob": ""}, "no row has the labels of two annotators"),
    ],
)
def test_columns_that_are_named_and_cannot_be_used_are_a_fault(
    row: dict[str, Any], fault: str
) -> None:
    with pytest.raises(NotAvailableError, match=fault):
        settled([row], annotator_columns=("ann", "bob"))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_test_rows_of_every_format_keep_how_many_annotators_gave_each_label(
    tmp_path: Path, suffix: str
) -> None:
    rows = [
        {**row, "annotator_labels": [(E, N, C)[row["label"]]] * 4 + [N], "genre": "ab"[i % 2]}
        for i, row in enumerate(source_rows({}))
    ]
    write(tmp_path, suffix, rows)
    manifest, examples = build(tmp_path)
    assert [row.votes for row in examples["test"][:3]] == [(4, 1, 0), (0, 5, 0), (0, 1, 4)]
    assert manifest.splits["test"].annotator_columns == ("annotator_labels",)
    assert manifest.splits["test"].further_columns == ("genre",)
    assert all(row.votes == () for row in examples["train"])


def test_warnings_are_in_the_manifest(tmp_path: Path) -> None:
    write(tmp_path, ".jsonl", source_rows({"label1": [E, N, C], "label2": [E, N, "perhaps"]}))
    manifest, examples = build(tmp_path)
    assert any("the annotators' labels are not used" in one for one in manifest.warnings)
    assert examples["test"][0].columns == {"label1": E, "label2": E}


NAMES = st.sampled_from(["annotator_labels", "votes", "label1", "label2", "genre"]) | st.text()
CELLS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([E, N, "1"])
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(NAMES, CELLS, max_size=4), max_size=4))
def test_whatever_else_rows_hold_they_are_read_and_can_be_written(rows: list[Any]) -> None:
    beyond, meaning = Beyond(), Meaning(DataConfig("d"), "label", USED, {})
    examples = [Example(i, "p", "h", i % 3, *beyond.of(row, meaning)) for i, row in enumerate(rows)]
    for example in beyond.settled(examples)[0]:
        assert from_json(Example, json.loads(dump_line(example).encode())) == example
