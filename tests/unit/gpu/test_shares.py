from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nlijob.gpu.shares import split

TOKENS = st.lists(st.integers(1, 500), max_size=40)
PROCESSES = st.integers(1, 9)


@given(TOKENS, PROCESSES)
def test_each_row_is_computed_by_one_process(tokens: list[int], processes: int) -> None:
    shares = split(tokens, processes)
    assert len(shares) == processes
    assert sorted(row for share in shares for row in share) == list(range(len(tokens)))
    assert all(share == sorted(share) for share in shares)


@given(TOKENS, PROCESSES)
def test_no_two_processes_differ_by_more_than_the_longest_row(
    tokens: list[int], processes: int
) -> None:
    totals = [sum(tokens[row] for row in share) for share in split(tokens, processes)]
    assert max(totals) - min(totals) <= max(tokens, default=0)


def test_one_process_computes_all_rows_in_their_order() -> None:
    assert split([3, 1, 2], 1) == [[0, 1, 2]]


def test_rows_are_split_by_tokens_and_not_by_count() -> None:
    assert split([10, 90, 10, 40, 30], 2) == [[1], [0, 2, 3, 4]]


def test_some_processes_have_none_of_a_few_rows() -> None:
    assert split([5], 3) == [[0], [], []]
