from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nlijob.gpu.fast.packing import packed_tokens
from nlijob.gpu.group import Group
from nlijob.gpu.shares import in_micro_batches, share_totals, split

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


@given(st.lists(TOKENS, min_size=1, max_size=9), PROCESSES, st.integers(1, 9), st.data())
def test_tokens_of_all_shares_are_those_of_one_batch_after_the_other(
    batches: list[list[int]], processes: int, at_once: int, data: st.DataObject
) -> None:
    shortest = min((tokens for batch in batches for tokens in batch), default=1)
    prefix = data.draw(st.integers(0, shortest - 1))
    group = Group()
    group.rank, group.size = data.draw(st.integers(0, processes - 1)), processes
    expected = [
        packed_tokens([batch[place] for place in own[start : start + at_once]], prefix)
        for batch in batches
        for own in [split([tokens - prefix for tokens in batch], processes)[group.rank]]
        for start in range(0, len(own), at_once)
    ]
    lengths = np.zeros((len(batches), max(map(len, batches))), np.int64)
    for number, batch in enumerate(batches):
        lengths[number, : len(batch)] = batch
    found = share_totals(lengths, at_once, group, prefix)
    assert sorted(found.tolist()) == sorted(expected)


def test_rows_of_a_step_are_computed_some_at_a_time() -> None:
    lengths = np.array([[1, 2, 3], [4, 0, 0]])
    assert in_micro_batches(lengths, 2).tolist() == [[1, 2], [3, 0], [4, 0], [0, 0]]
