"""Rows in arrays are the rows that a tokenizer made, and take little more than their tokens."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlijob.gpu.fast.packing import prefix_of_all, shared_prefix
from nlijob.gpu.heads import CausalHead, Encoded, EncodedRows
from nlijob.gpu.heads.rows import as_table, columns_of, lengths_of, shortest_of
from nlijob.records.job import Example

ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), min_size=1, max_size=9)


def new_rows(ids: list[list[int]]) -> EncodedRows:
    examples = [Example(number, "", "", 0) for number in range(len(ids))]
    return EncodedRows.of(examples, [{"input_ids": ids}])


def test_rows_are_what_the_tokenizer_makes_of_each(
    head: CausalHead, examples: list[Example]
) -> None:
    alone = [(one, head._tokenize([one])) for one in examples[:9]]
    expected = [
        Encoded(one, {name: [*column[0]] for name, column in columns.items()})
        for one, columns in alone
    ]
    rows = head.encode("test", examples[:9])
    assert [*rows] == rows[:] == expected
    assert rows[-1] == expected[-1]
    assert pickle.loads(pickle.dumps(rows))[2:4] == expected[2:4]


def test_there_is_no_row_behind_the_last() -> None:
    with pytest.raises(IndexError):
        new_rows([[1], [2, 3]])[2]


def test_a_row_takes_its_tokens_and_a_few_bytes() -> None:
    rows = new_rows([[50_000 + number] * 60 for number in range(1_000)])
    held = sum(column.nbytes for column in rows.columns.values()) + rows.bounds.nbytes
    assert held / len(rows) <= 60 * 4 + 16


@pytest.mark.parametrize("made", [new_rows, lambda ids: [*new_rows(ids)]])
def test_lengths_are_those_of_single_rows(
    made: Callable[[list[list[int]]], EncodedRows | list[Encoded]],
) -> None:
    rows = made([[1, 2, 3], [4], [5, 6], [7]])
    assert lengths_of(rows).tolist() == [3, 1, 2, 1]
    assert shortest_of(rows) == rows[1]
    assert as_table(rows)[:] == rows[:]


def test_columns_are_those_of_any_row() -> None:
    rows = new_rows([[1], [2]])
    more = Encoded(rows[1].example, {"input_ids": [2], "token_type_ids": [0]})
    assert columns_of(rows) == {"input_ids"}
    assert columns_of([rows[0], more]) == {"input_ids", "token_type_ids"}


def test_rows_that_are_too_long_are_left_out_of_all_columns() -> None:
    examples = [Example(number, "", "", 0) for number in range(3)]
    columns = {"input_ids": [[1, 2], [3, 4, 5], [6]], "attention_mask": [[1, 1], [1, 1, 0], [1]]}
    rows = EncodedRows.of(examples, [columns])
    assert rows.up_to(2)[:] == [rows[0], rows[2]]
    assert rows.up_to(3) is rows


def test_tokens_are_counted_in_each_row() -> None:
    assert new_rows([[1, 2, 1], [3], [2]]).counts_of([1, 2]).tolist() == [3, 0, 1]


def test_a_token_belongs_to_the_row_that_holds_it() -> None:
    rows = new_rows([[1, 2], [3], [4, 5]])
    assert rows.rows_at(np.arange(5)).tolist() == [0, 0, 1, 2, 2]


@given(ROWS, st.integers(1, 9))
def test_the_prefix_of_all_rows_is_that_of_their_lists(ids: list[list[int]], together: int) -> None:
    assert prefix_of_all(new_rows(ids), together) == shared_prefix(ids, together)
