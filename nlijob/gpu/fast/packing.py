"""Rows laid end to end, so that no padding is computed between them, nor twice what all begin with.

A pack is one vector of integers: one copy brings a whole batch to the device, and a CUDA graph
reads it at fixed places. Its size is that of its shape, whatever rows are in it: tokens behind the
last row and rows that are missing are filled in, and count for nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

TOKEN_STEP = 16
"""Packs hold a multiple of this many tokens."""
GRAPH_COST_TOKENS = 4_000
"""Tokens that a GPU could have computed while one more graph is captured."""
MOST_BEYOND = 64
"""Tokens more than needed that a pack may have where it takes less time."""
LEAST_GAIN = 1.02
"""A larger pack is taken where a smaller costs so many times as much: less may be chance."""
LEAST_SAVED = 1 / 8
"""Share of their tokens that rows must have in common for a pack to hold it once."""
FILLER_TOKEN = 0


@dataclass(frozen=True)
class PackShape:
    """The size of a pack."""

    tokens: int
    rows: int
    longest: int
    """No row is longer."""
    prefix: int = 0
    """Tokens that every row begins with. Only the first row has them; of the others the pack holds
    what is behind."""

    @property
    def room(self) -> int:
        """Tokens that a segment behind the first may have."""
        return self.longest - self.prefix

    @property
    def segments(self) -> int:
        """Stretches that attend to themselves and to the prefix: rows, and filling that none has
        room for."""
        return self.rows + math.ceil(self.tokens / self.room)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the parts of a pack, in the order of `PackView`."""
        return (self.tokens, self.tokens, self.segments + 1, self.rows, self.rows, self.rows, 1)


@dataclass(frozen=True)
class PackView:
    """The parts of a pack on the device; int32 but where an index must be wider."""

    ids: Tensor
    """[tokens]"""
    positions: Tensor
    """[tokens]: of each token in its row."""
    bounds: Tensor
    """[segments + 1]: where segments begin, and the end; those left over are empty."""
    last: Tensor
    """[rows]: the last token of each row."""
    targets: Tensor
    """[rows]: the class of each row's label."""
    real: Tensor
    """[rows]: 1 for a row, 0 for one that is missing."""
    of: Tensor
    """[1]: rows of the effective batch that this is (a part of)."""


def pack(rows: Sequence[list[int]], targets: Sequence[int], shape: PackShape, of: int) -> list[int]:
    """The rows' token ids and their label's classes as one vector of `sum(shape.sizes)` integers.

    Raises ValueError where they do not fit the shape.
    """
    shared = shape.prefix
    if any(row[:shared] != rows[0][:shared] or len(row) == shared for row in rows):
        raise ValueError(f"not all rows go on behind {shared} tokens that they share")
    held = [rows[0], *(row[shared:] for row in rows[1:])]
    used = sum(map(len, held))
    if used > shape.tokens or len(rows) > shape.rows or max(map(len, rows)) > shape.longest:
        raise ValueError(f"{len(rows)} rows of {used} tokens do not fit {shape}")
    filling = shape.tokens - used
    segments = [len(row) for row in held]
    # behind the last row, which does not look there: a segment more would be work of its own
    room = shape.room if len(rows) > 1 else shape.longest
    segments[-1] += min(filling, room - segments[-1])
    left = shape.tokens - sum(segments)
    segments += [shape.room] * (left // shape.room)
    if left % shape.room:
        segments.append(left % shape.room)
    missing = [0] * (shape.rows - len(rows))
    bounds = [0]
    for length in segments:
        bounds.append(bounds[-1] + length)
    return [
        *(token for row in held for token in row),
        *[FILLER_TOKEN] * filling,
        *range(segments[0]),
        *(shared + position for length in segments[1:] for position in range(length)),
        *bounds,
        *[shape.tokens] * (shape.segments - len(segments)),
        *(start + len(row) - 1 for start, row in zip(bounds, held, strict=False)),
        *missing,
        *targets,
        *missing,
        *[1] * len(rows),
        *missing,
        of,
    ]


def shared_prefix(rows: Sequence[list[int]], together: int) -> int:
    """Tokens that all rows begin with, each going on behind them; 0 where holding them once in a
    pack of so many rows saves too little to be worth what attention then has to do."""
    first, last = min(rows), max(rows)  # what these begin with alike, all between them do
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    prefix = min(sum(1 for _ in same), min(map(len, rows)) - 1)
    mean = sum(map(len, rows)) / len(rows)
    return prefix if prefix * (together - 1) >= LEAST_SAVED * together * mean else 0


def view(vector: Tensor, shape: PackShape) -> PackView:
    """The parts of a pack, as views of its vector."""
    return PackView(*torch.split(vector, list(shape.sizes)))


def packed_tokens(lengths: Sequence[int], prefix: int) -> int:
    """What rows of these lengths take in a pack that holds a prefix of theirs once."""
    return prefix + sum(length - prefix for length in lengths)


def rounded(tokens: int) -> int:
    """The next multiple of TOKEN_STEP."""
    return math.ceil(tokens / TOKEN_STEP) * TOKEN_STEP


def token_counts(
    totals: Sequence[int],
    graph_cost_tokens: int = GRAPH_COST_TOKENS,
    cost: Callable[[int], float] = float,
) -> tuple[int, ...]:
    """The pack sizes, rising, that serve batches of these many tokens at the least cost.

    `cost`: of a pack of a size, in any unit. `graph_cost_tokens`: of each size, in tokens at the
    rate of the best. A batch takes the smallest size that holds it.
    """
    uses = Counter(map(rounded, totals))
    sizes = sorted(uses)
    tried = range(sizes[0], sizes[-1] + MOST_BEYOND + 1, TOKEN_STEP)
    costs = {size: cost(size) for size in tried}
    unit = min(costs[size] / size for size in tried)
    serving = {}  # a size and the one to take for it
    cheapest = tried[-1]
    for size in reversed(tried):
        if costs[size] < LEAST_GAIN * costs[cheapest]:
            cheapest = size
        serving[size] = cheapest
    # best[i]: least cost of serving the i smallest sizes, and where its largest pack begins.
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
