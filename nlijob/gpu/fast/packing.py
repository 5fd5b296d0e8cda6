"""Packs: rows laid end to end without padding, their shared prefix only once.

A pack is one vector of integers. One copy brings a whole batch to the device, and a CUDA graph
reads it at fixed addresses. Its size depends on its shape only: tokens after the last row and
missing rows are filled in, and have no effect.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nlijob.gpu.heads.rows import Encoded, EncodedRows

TOKEN_STEP = 16
"""The number of tokens in a pack is a multiple of this."""
GRAPH_COST_TOKENS = 4_000
"""Cost of capturing one more graph, in tokens that a GPU could compute in the same time."""
MAX_EXTRA_TOKENS = 64
"""Largest number of tokens that a pack may have more than needed, where it takes less time."""
MIN_SPEEDUP = 1.02
"""A larger pack is used if a smaller one costs at least this many times as much; a smaller ratio
may be measurement noise."""
MIN_SAVED_SHARE = 1 / 8
"""Smallest fraction of all tokens that a pack must save for its rows to share a prefix."""
RARE = 0.01
"""Largest fraction of packs that take a graph of their own for a row that is longer than usual."""
FILLER_TOKEN = 0
SHARED = -1
"""The row number of tokens that are not one row's: those of the prefix, and filling."""


@dataclass(frozen=True)
class PackShape:
    """The size of a pack."""

    tokens: int
    rows: int
    longest: int
    """Tokens of the longest row that fits."""
    prefix: int = 0
    """Tokens that all rows begin with; the pack holds them for the first row only."""
    is_bidirectional: bool = False
    """Whether tokens attend to those behind them; no filling may then be behind a row."""
    has_types: bool = False
    """Whether each token has a type, such as the number of its text in a pair."""
    fills_apart: bool = False
    """Whether filling is in segments of its own, which kernels skip."""

    @property
    def max_segment(self) -> int:
        """Largest number of tokens in a segment after the first."""
        return self.longest - self.prefix

    @property
    def segments(self) -> int:
        """Largest number of segments, each of which attends to itself and to the prefix.

        A segment is a row, or filling that fits behind no row.
        """
        return self.rows + math.ceil(self.tokens / self.max_segment)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Lengths of a pack's parts, in the order of `PackView`."""
        by_token, by_row = [self.tokens] * 3, [self.rows] * 3
        return (*by_token, self.segments + 1, *by_row, 1, 1, self.tokens * self.has_types)


@dataclass(frozen=True)
class PackView:
    """The parts of a pack on the device, all int32."""

    ids: Tensor
    """[tokens]"""
    positions: Tensor
    """[tokens]: position of each token in its row."""
    row_numbers: Tensor
    """[tokens]: number of each token's row in the effective batch, or SHARED."""
    bounds: Tensor
    """[segments + 1]: first token of each segment, and the end; unused segments are empty."""
    last: Tensor
    """[rows]: index of each row's last token."""
    targets: Tensor
    """[rows]: class of each row's label."""
    is_row: Tensor
    """[rows]: 1 for a row, 0 for a missing one."""
    batch_rows: Tensor
    """[1]: rows in the effective batch that the pack belongs to."""
    row_count: Tensor
    """[1]: rows in the pack, the first of its segments."""
    types: Tensor
    """[tokens]: type of each token; [0] where the shape has none."""


def pack(
    rows: Sequence[list[int]],
    targets: Sequence[int],
    shape: PackShape,
    batch_rows: int,
    numbers: Sequence[int] | None = None,
    types: Sequence[list[int]] = (),
) -> list[int]:
    """Token ids and label classes of rows as one vector of `sum(shape.sizes)` integers.

    `batch_rows`: rows in the effective batch. `numbers`: those of the rows in it; by default, they
    are its first. `types`: those of each row's tokens, where the shape has types. Raises ValueError
    where rows do not fit the shape.
    """
    shared = shape.prefix
    if shared and (shape.is_bidirectional or shape.has_types):
        raise ValueError("such rows share no prefix")
    if any(row[:shared] != rows[0][:shared] or len(row) == shared for row in rows):
        raise ValueError(f"rows must continue after a shared prefix of {shared} tokens")
    held = [rows[0], *(row[shared:] for row in rows[1:])]
    used = sum(map(len, held))
    if used > shape.tokens or len(rows) > shape.rows or max(map(len, rows)) > shape.longest:
        raise ValueError(f"{len(rows)} rows of {used} tokens do not fit {shape}")
    filling = shape.tokens - used
    segments = [len(row) for row in held]
    if not (shape.is_bidirectional or shape.fills_apart):
        # filling goes behind the last row, which does not see it: another segment would cost more
        limit = shape.max_segment if len(rows) > 1 else shape.longest
        segments[-1] += min(filling, limit - segments[-1])
    left = shape.tokens - sum(segments)
    segments += [shape.max_segment] * (left // shape.max_segment)
    if left % shape.max_segment:
        segments.append(left % shape.max_segment)
    missing = [0] * (shape.rows - len(rows))
    bounds = [0]
    for length in segments:
        bounds.append(bounds[-1] + length)
    return [
        *(token for row in held for token in row),
        *[FILLER_TOKEN] * filling,
        *range(segments[0]),
        *(shared + position for length in segments[1:] for position in range(length)),
        *[SHARED] * shared,
        *(
            number
            for number, row in zip(numbers or range(len(rows)), rows, strict=True)
            for _ in row[shared:]
        ),
        *[SHARED] * filling,
        *bounds,
        *[shape.tokens] * (shape.segments - len(segments)),
        *(start + len(row) - 1 for start, row in zip(bounds, held, strict=False)),
        *missing,
        *targets,
        *missing,
        *[1] * len(rows),
        *missing,
        batch_rows,
        len(rows),
        *([*(kind for row in types for kind in row), *[0] * filling] if shape.has_types else []),
    ]


def shared_prefix(rows: Sequence[list[int]], together: int) -> int:
    """Number of tokens that all rows begin with, less than the shortest row has.

    0 where sharing them in packs of `together` rows would not repay the extra work in attention.
    """
    first, last = min(rows), max(rows)  # what these two share, all rows share
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    prefix = min(sum(1 for _ in same), min(map(len, rows)) - 1)
    return _worth_sharing(prefix, sum(map(len, rows)) / len(rows), together)


def prefix_of_all(rows: Sequence[Encoded], together: int) -> int:
    """`shared_prefix` of rows, also of very many in a table."""
    if not isinstance(rows, EncodedRows):
        return shared_prefix([row.features["input_ids"] for row in rows], together)
    prefix = min(rows.common_prefix, int(rows.lengths.min()) - 1)
    return _worth_sharing(prefix, int(rows.lengths.sum()) / len(rows), together)


def _worth_sharing(prefix: int, mean: float, together: int) -> int:
    """`prefix`, or 0 if it is too short to be held once; `mean`: tokens of a row."""
    return prefix if prefix * (together - 1) >= MIN_SAVED_SHARE * together * mean else 0


def view(vector: Tensor, shape: PackShape) -> PackView:
    """The parts of a pack as views of its vector."""
    return PackView(*torch.split(vector, list(shape.sizes)))


def packed_tokens(lengths: Sequence[int], prefix: int) -> int:
    """Tokens in a pack of rows of these lengths that holds their prefix once."""
    return prefix + sum(length - prefix for length in lengths)


def pack_shape(
    lengths: Sequence[int], prefix: int, is_bidirectional: bool = False, has_types: bool = False
) -> PackShape:
    """Shape of the smallest pack that holds rows of these lengths and their prefix once."""
    tokens = rounded(packed_tokens(lengths, prefix))
    return PackShape(tokens, len(lengths), max(lengths), prefix, is_bidirectional, has_types)


def rounded(tokens: int) -> int:
    """`tokens` rounded up to a multiple of TOKEN_STEP."""
    return math.ceil(tokens / TOKEN_STEP) * TOKEN_STEP


def usual_longest(lengths: NDArray[np.int64], rows: int) -> int:
    """Tokens that no row of a pack exceeds, but in a fraction `RARE` of packs of so many rows.

    Attention reserves shared memory for the longest row that a pack may have, so that a few long
    ones would slow down all packs. Where they are hardly longer than the others, this is the length
    of the longest row of all.
    """
    longest = int(lengths.max())
    usual = int(np.quantile(lengths, 1 - RARE / rows, method="higher"))
    return usual if rounded(usual) < rounded(longest) else longest


def token_counts(
    totals: Sequence[int],
    graph_cost_tokens: int = GRAPH_COST_TOKENS,
    cost: Callable[[int], float] = float,
) -> tuple[int, ...]:
    """The pack sizes, in tokens and ascending, that cost least for batches with these totals.

    `cost`: cost of a pack of a given size, in any unit. `graph_cost_tokens`: cost of one more size,
    in tokens at the lowest cost per token. A batch uses the smallest size that holds it.
    """
    uses = Counter(map(rounded, totals))
    sizes = sorted(uses)
    tried = range(sizes[0], sizes[-1] + MAX_EXTRA_TOKENS + 1, TOKEN_STEP)
    costs = {size: cost(size) for size in tried}
    for size in reversed(tried):  # a GPU may have been slow at first
        costs[size] = min(costs[size], cost(size))
    unit = min(costs[size] / size for size in tried)
    serving = {}  # size -> size to use for it
    cheapest = tried[-1]
    for size in reversed(tried):
        if costs[size] < MIN_SPEEDUP * costs[cheapest]:
            cheapest = size
        serving[size] = cheapest
    # best[i]: least cost of the i smallest sizes, and where the range of the largest pack begins
    best: list[tuple[float, int]] = [(0, 0)]
    for end in range(1, len(sizes) + 1):
        each = costs[serving[sizes[end - 1]]] / unit
        choices = (
            (
                best[begin][0]
                + graph_cost_tokens
                + each * sum(uses[size] for size in sizes[begin:end]),
                begin,
            )
            for begin in range(end)
        )
        best.append(min(choices))
    chosen: set[int] = set()
    end = len(sizes)
    while end:
        chosen.add(serving[sizes[end - 1]])
        end = best[end][1]
    return tuple(sorted(chosen))
