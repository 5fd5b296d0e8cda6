"""Checks that rows of a pack do not influence each other, before packs are used.

Layers that pass state between tokens other than by attention, such as convolutions and state space
layers, may carry it from one row into the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nlijob.gpu.fast.agreement import relative_difference
from nlijob.gpu.fast.errors import NoPackedRows
from nlijob.gpu.fast.packing import PackShape, pack_shape, view
from nlijob.gpu.heads import Encoded
from nlijob.gpu.influence import influenced

if TYPE_CHECKING:
    from nlijob.gpu.fast.model import FastModel

CHECKED_ROWS = 4
"""Rows with a neighbour before, after and on both sides, in either half."""


MAX_NOISE_RATIO = 4
"""Largest accepted ratio of a change to the one that a repetition shows, where kernels add up in an
order that is not fixed."""


def check_independence(fast: FastModel, rows: Sequence[Encoded], tolerance: float) -> None:
    """Raise NoPackedRows if a row's logits depend on other rows of its pack.

    `tolerance`: largest relative difference of logits that passes as rounding, where gradients say
    that there is no influence. That is so in a mixture of experts, which groups tokens of all rows.
    """
    chosen = sorted(rows, key=lambda row: row.length)[:CHECKED_ROWS]
    if len(chosen) < 2:
        return
    fullest = fast.shape_of(chosen)
    for prefix in {0, fullest.prefix}:
        kind = fullest.is_bidirectional, fullest.has_types
        shape = pack_shape([row.length for row in chosen], prefix, *kind)
        by_gradient = None if fast.is_fused else _by_gradient(fast, chosen, shape)
        if by_gradient or _by_values(fast, chosen, shape, by_gradient, tolerance):
            raise NoPackedRows("rows of a pack influence each other")


def _by_gradient(fast: FastModel, rows: Sequence[Encoded], shape: PackShape) -> bool | None:
    packed = view(fast.to_device(rows, shape, len(rows)), shape)
    own = torch.zeros(len(rows), shape.tokens, dtype=torch.bool)
    bounds = packed.bounds.tolist()
    for number, row in enumerate(rows):
        held = row.length - (shape.prefix if number else 0)
        own[number, : shape.prefix] = True
        own[number, bounds[number] : bounds[number] + held] = True
    return influenced(fast.embedding, lambda: fast.logits(packed, shape), own)


def _by_values(
    fast: FastModel,
    rows: Sequence[Encoded],
    shape: PackShape,
    by_gradient: bool | None,
    tolerance: float,
) -> bool:
    """Whether logits change with the tokens of neighbours, more than they do when repeated."""

    def scores(some: Sequence[Encoded]) -> Tensor:
        with torch.no_grad():
            return fast.logits(view(fast.to_device(some, shape, len(some)), shape), shape)

    expected = scores(rows)
    for first in (0, 1):
        kept = slice(first, None, 2)
        altered = [
            row if number % 2 == first else _altered(row, shape.prefix, fast.vocabulary)
            for number, row in enumerate(rows)
        ]
        found = scores(altered)[kept]
        if torch.equal(found, expected[kept]):
            continue
        noise = (scores(rows) - expected)[kept].abs().max()
        is_noise = bool((found - expected[kept]).abs().max() <= MAX_NOISE_RATIO * noise)
        is_known = by_gradient is not None or is_noise
        if not is_known or not relative_difference(found, expected[kept]) <= tolerance:
            return True
    return False


def _altered(row: Encoded, prefix: int, vocabulary: int) -> Encoded:
    """The row with other tokens after its prefix, as many as before."""
    ids = row.features["input_ids"]
    other = [(token + 1 + place) % vocabulary for place, token in enumerate(ids)]
    features = {**row.features, "input_ids": ids[:prefix] + other[prefix:]}
    return dataclasses.replace(row, features=features)
