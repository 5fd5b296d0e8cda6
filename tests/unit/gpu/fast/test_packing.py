from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from nlijob.gpu.fast.packing import (
    PackShape,
    pack,
    packed_tokens,
    rounded,
    shared_prefix,
    token_counts,
    usual_longest,
    view,
)

ROWS = [[11, 12, 13], [21, 22], [31, 32, 33, 34]]
SHAPE = PackShape(tokens=16, rows=4, longest=4)


def test_rows_are_laid_end_to_end_with_positions_from_zero() -> None:
    packed = view(torch.tensor(pack(ROWS, [5, 6, 7], SHAPE, 3)), SHAPE)
    assert packed.ids.tolist()[:9] == [11, 12, 13, 21, 22, 31, 32, 33, 34]
    assert packed.positions.tolist()[:9] == [0, 1, 2, 0, 1, 0, 1, 2, 3]
    assert packed.last.tolist()[:3] == [2, 4, 8]
    assert packed.targets.tolist()[:3] == [5, 6, 7]
    assert packed.batch_rows.tolist() == [3]


def test_filling_is_split_into_segments_no_longer_than_the_longest_row() -> None:
    bounds = view(torch.tensor(pack(ROWS, [5, 6, 7], SHAPE, 3)), SHAPE).bounds.tolist()
    assert bounds == [0, 3, 5, 9, 13, 16, 16, 16, 16]


def test_filling_extends_the_last_row_up_to_the_longest_length() -> None:
    shape = PackShape(tokens=16, rows=3, longest=8)
    packed = view(torch.tensor(pack(ROWS, [5, 6, 7], shape, 3)), shape)
    assert packed.bounds.tolist() == [0, 3, 5, 13, 16, 16]
    assert packed.last.tolist() == [2, 4, 8]
    assert packed.positions.tolist() == [0, 1, 2, 0, 1, *range(8), 0, 1, 2]


def test_filling_is_in_segments_of_its_own_where_kernels_skip_it() -> None:
    shape = PackShape(tokens=16, rows=4, longest=8, fills_apart=True)
    view_of = view(torch.tensor(pack(ROWS, [0, 1, 2], shape, 3)), shape)
    assert view_of.bounds.tolist()[:6] == [0, 3, 5, 9, 16, 16]
    assert view_of.row_count.tolist() == [3]


def test_no_filling_is_behind_a_row_that_attends_in_both_directions() -> None:
    shape = PackShape(tokens=16, rows=3, longest=8, is_bidirectional=True)
    packed = view(torch.tensor(pack(ROWS, [5, 6, 7], shape, 3)), shape)
    assert packed.bounds.tolist() == [0, 3, 5, 9, 16, 16]


def test_types_are_packed_where_the_shape_has_them() -> None:
    types = [[0, 0, 1], [0, 1], [0, 1, 1, 1]]
    shape = PackShape(tokens=16, rows=3, longest=8, has_types=True)
    packed = view(torch.tensor(pack(ROWS, [5, 6, 7], shape, 3, types=types)), shape)
    assert packed.types.tolist() == [0, 0, 1, 0, 1, 0, 1, 1, 1, *[0] * 7]
    assert packed.batch_rows.tolist() == [3]
    assert view(torch.tensor(pack(ROWS, [5, 6, 7], SHAPE, 3)), SHAPE).types.tolist() == []


@pytest.mark.parametrize("kind", ["is_bidirectional", "has_types"])
def test_rows_whose_prefix_may_differ_share_none(kind: str) -> None:
    shape = PackShape(tokens=16, rows=2, longest=4, prefix=1, **{kind: True})
    with pytest.raises(ValueError, match="share no prefix"):
        pack([[1, 2], [1, 3]], [0, 0], shape, 2, types=[[0, 0], [0, 0]])


def test_missing_rows_have_no_effect() -> None:
    packed = view(torch.tensor(pack(ROWS, [5, 6, 7], SHAPE, 3)), SHAPE)
    assert packed.is_row.tolist() == [1, 1, 1, 0]


def test_the_size_of_a_pack_depends_only_on_its_shape() -> None:
    sizes = {len(pack(rows, [0] * len(rows), SHAPE, 1)) for rows in (ROWS, ROWS[:1], [[1] * 4] * 4)}
    assert sizes == {sum(SHAPE.sizes)}


def test_only_the_first_row_contains_the_shared_prefix() -> None:
    rows = [[1, 2, 11, 12, 13], [1, 2, 21], [1, 2, 31, 32]]
    shape = PackShape(tokens=16, rows=4, longest=6, prefix=2)
    packed = view(torch.tensor(pack(rows, [5, 6, 7], shape, 3)), shape)
    assert packed.ids.tolist()[:8] == [1, 2, 11, 12, 13, 21, 31, 32]
    assert packed.positions.tolist() == [0, 1, 2, 3, 4, 2, 2, 3, 4, 5, *range(2, 6), 2, 3]
    assert packed.bounds.tolist() == [0, 5, 6, 10, 14, 16, 16, 16, 16]
    assert packed.last.tolist()[:3] == [4, 5, 7]
    assert len(packed.bounds) == shape.segments + 1


def test_filling_extends_a_single_row_up_to_the_longest_length() -> None:
    shape = PackShape(tokens=16, rows=2, longest=12, prefix=2)
    packed = view(torch.tensor(pack([[1, 2, 3]], [5], shape, 1)), shape)
    assert packed.bounds.tolist() == [0, 12, 16, 16, 16]
    assert packed.positions.tolist() == [*range(12), *range(2, 6)]


@pytest.mark.parametrize("rows", [[[1, 2, 3], [1, 4, 3]], [[1, 2], [1, 2, 3]]])
def test_rows_that_do_not_continue_after_the_prefix_are_refused(rows: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="a shared prefix of 2 tokens"):
        pack(rows, [0, 0], PackShape(tokens=16, rows=2, longest=4, prefix=2), 2)


def test_a_prefix_is_shared_if_it_saves_enough() -> None:
    rows = [[1, 2, 3, 4, 5], [1, 2, 3, 6], [1, 2, 3, 7, 8, 9]]
    assert shared_prefix(rows, together=3) == 3
    assert shared_prefix(rows, together=1) == 0
    assert (
        shared_prefix([*rows, [1, 2]], together=3) == 1
    )  # so that this row continues after the prefix too
    assert shared_prefix([*rows, [4, 2, 3]], together=3) == 0
    assert shared_prefix([[1, *range(10, 30)], [1, *range(40, 60)]], together=2) == 0


@pytest.mark.parametrize("rows", [[[1] * 5], [[1]] * 5, [[1] * 4] * 5])
def test_rows_that_do_not_fit_are_refused(rows: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        pack(rows, [0] * len(rows), SHAPE, 1)


@pytest.mark.parametrize(
    ("longest", "usual"),
    [
        ([300], 90),  # one row of 1,000 in packs of 8: in 0.8 % of packs
        ([300] * 3, 300),  # in 2.4 %
        ([96], 96),  # as many tiles of 16 tokens as the others have
        ([97], 90),
    ],
)
def test_rare_long_rows_are_not_usual(longest: list[int], usual: int) -> None:
    lengths = np.array([*[90] * (1000 - len(longest)), *longest])
    assert usual_longest(lengths, 8) == usual


def test_every_batch_fits_into_some_pack() -> None:
    counts = token_counts([352, 460, 461, 57])
    assert max(counts) == 464
    assert all(count % 16 == 0 for count in counts)


def test_a_size_is_captured_if_its_use_repays_it() -> None:
    assert token_counts([64] + [480] * 100, graph_cost_tokens=1000) == (480,)
    assert token_counts([64] * 10 + [480] * 100, graph_cost_tokens=1000) == (64, 480)


def test_a_larger_pack_is_used_if_it_takes_less_time() -> None:
    slow = {304: 9.9, 320: 10.7}

    def cost(tokens: int) -> float:
        return slow.get(tokens, 6 + tokens / 120)  # 336: 8.8

    assert token_counts([300, 310, 330], 0, cost) == (336,)
    assert token_counts([250, 310], 0, cost) == (256, 336)
    assert token_counts([310], 0) == (320,)


def test_a_difference_within_the_noise_chooses_no_larger_pack() -> None:
    assert token_counts([300], 0, {304: 1.01, 320: 1.0, 336: 1.1, 352: 1.2, 368: 1.3}.get) == (304,)  # type: ignore[arg-type]


@given(
    rows=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=6),
    prefix=st.lists(st.integers(1, 9), max_size=5),
    spare_tokens=st.integers(0, 40),
    spare_rows=st.integers(0, 3),
)
def test_any_rows_are_found_again_in_their_pack(
    rows: list[list[int]], prefix: list[int], spare_tokens: int, spare_rows: int
) -> None:
    whole = [prefix + row for row in rows]
    tokens = rounded(packed_tokens(list(map(len, whole)), len(prefix)) + spare_tokens)
    shape = PackShape(tokens, len(rows) + spare_rows, max(map(len, whole)), len(prefix))
    packed = view(torch.tensor(pack(whole, [7] * len(rows), shape, 9)), shape)
    bounds, ids, positions = (
        part.tolist() for part in (packed.bounds, packed.ids, packed.positions)
    )
    assert bounds == sorted(bounds)
    assert (bounds[0], bounds[-1]) == (0, tokens)
    assert len(bounds) == shape.segments + 1
    for number, row in enumerate(whole):
        begin, last = bounds[number], int(packed.last[number])
        own = ids[begin : last + 1]
        assert (own if number == 0 else prefix + own) == row
        first = 0 if number == 0 else len(prefix)
        assert positions[begin : last + 1] == list(range(first, len(row)))
        assert last < bounds[number + 1]  # the row ends within its segment
    assert max(positions) < shape.longest
    assert packed.is_row.tolist() == [1] * len(rows) + [0] * spare_rows
