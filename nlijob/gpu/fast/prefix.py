"""The shared prefix of a pack: computed once, and visible to the attention of every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prefix:
    """The first tokens of a pack's first segment, which all other segments continue.

    Causal attention never looks ahead, so the prefix's values are the same in every row, and its
    gradient is the sum over all rows. Dropout draws once for the prefix, where the plain loop draws
    for each row.
    """

    tokens: int
    spread_bounds: Tensor
    """[segments + 1], int32: first spread value of each segment, and the end."""
    source: Tensor
    """[tokens + prefix * (segments - 1)]: token of the pack for each spread value."""
    places: Tensor
    """[tokens]: index of each of the pack's tokens among the spread values."""
    copies: Tensor
    """[segments - 1, prefix]: index of the prefix before each segment but the first."""
    is_used: Tensor
    """[segments - 1]: whether the segment has any tokens."""

    def spread(self, values: Tensor) -> Tensor:
        """Repeat the prefix before each segment but the first, which contains it.

        [tokens, ...] -> [tokens + prefix * (segments - 1), ...]
        """
        places = (self.source, self.places, self.copies, self.is_used)
        spread: Tensor = _Spread.apply(values, *places)  # type: ignore[no-untyped-call]
        return spread


def make_prefix(tokens: int, bounds: Tensor, pack_tokens: int) -> Prefix:
    """The prefix of a pack whose segments lie at `bounds` [segments + 1]."""
    before = torch.arange(-1, len(bounds) - 1, device=bounds.device).clamp(min=0)
    spread_bounds = (bounds + tokens * before).int()
    size = pack_tokens + tokens * (len(bounds) - 2)
    place = torch.arange(size, device=bounds.device, dtype=bounds.dtype)
    segment = torch.searchsorted(spread_bounds, place, right=True) - 1
    offset = place - spread_bounds[segment]
    own = (segment > 0) & (offset >= tokens)
    token = torch.arange(pack_tokens, device=bounds.device, dtype=bounds.dtype)
    return Prefix(
        tokens,
        spread_bounds,
        source=torch.where(own, bounds[segment] + offset - tokens, offset),
        places=token + tokens * (torch.searchsorted(bounds, token, right=True) - 1),
        copies=spread_bounds[1:-1, None] + torch.arange(tokens, device=bounds.device),
        is_used=bounds[1:].diff() > 0,
    )


class _Spread(torch.autograd.Function):
    """Sums gradients in float32 and in a fixed order, so that results are reproducible."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, source: Tensor, places: Tensor, copies: Tensor, is_used: Tensor
    ) -> Tensor:
        ctx.save_for_backward(places, copies, is_used)
        return values[source]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        places, copies, is_used = ctx.saved_tensors
        total, repeated = grad[places], grad[copies].float()
        # an empty segment's part is not written: it may contain anything
        repeated = torch.where(is_used.view(-1, *[1] * (repeated.dim() - 1)), repeated, 0.0).sum(0)
        prefix, others = total[: len(repeated)], total[len(repeated) :]
        return torch.cat([(prefix + repeated).to(grad.dtype), others]), None, None, None, None
