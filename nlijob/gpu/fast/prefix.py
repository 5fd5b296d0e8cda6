"""What all rows of a pack begin with: there once, and seen by every row's attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prefix:
    """The first tokens of a pack's first segment, which all other segments go on behind.

    Causal attention never looks ahead, so what the prefix's tokens come to is the same in every
    row. Their gradient is the sum of what all rows ask of them. Dropout draws for them once, where
    each row by itself would draw anew.
    """

    tokens: int
    spread_bounds: Tensor
    """[segments + 1], int32: where segments begin once values are spread."""
    source: Tensor
    """[tokens + prefix * (segments - 1)]: the pack's token that each spread value is one of."""
    places: Tensor
    """[tokens]: where each token of the pack lies among the spread values, in its own place."""
    copies: Tensor
    """[segments - 1, prefix]: where the prefix lies before each segment but the first."""
    is_used: Tensor
    """[segments - 1]: whether there is anything in the segment."""

    def spread(self, values: Tensor) -> Tensor:
        """[tokens, ...] -> [tokens + prefix * (segments - 1), ...]: the prefix before each segment
        but the first, which has it."""
        places = (self.source, self.places, self.copies, self.is_used)
        spread: Tensor = _Spread.apply(values, *places)  # type: ignore[no-untyped-call]
        return spread


def prefix_of(tokens: int, bounds: Tensor, of: int) -> Prefix:
    """That of a pack of `of` tokens whose segments lie at `bounds` [segments + 1]."""
    before = torch.arange(-1, len(bounds) - 1, device=bounds.device).clamp(min=0)
    spread_bounds = (bounds + tokens * before).int()
    size = of + tokens * (len(bounds) - 2)
    place = torch.arange(size, device=bounds.device, dtype=bounds.dtype)
    segment = torch.searchsorted(spread_bounds, place, right=True) - 1
    offset = place - spread_bounds[segment]
    own = (segment > 0) & (offset >= tokens)
    token = torch.arange(of, device=bounds.device, dtype=bounds.dtype)
    return Prefix(
        tokens,
        spread_bounds,
        source=torch.where(own, bounds[segment] + offset - tokens, offset),
        places=token + tokens * (torch.searchsorted(bounds, token, right=True) - 1),
        copies=spread_bounds[1:-1, None] + torch.arange(tokens, device=bounds.device),
        is_used=bounds[1:].diff() > 0,
    )


class _Spread(torch.autograd.Function):
    """Gradients are summed in an order of their own, the same every time, in float32."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, source: Tensor, places: Tensor, copies: Tensor, is_used: Tensor
    ) -> Tensor:
        ctx.save_for_backward(places, copies, is_used)
        return values[source]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        places, copies, is_used = ctx.saved_tensors
        total, asked = grad[places], grad[copies].float()
        # nothing looks at the prefix from an empty segment: there may be anything there
        asked = torch.where(is_used.view(-1, *[1] * (asked.dim() - 1)), asked, 0.0).sum(0)
        prefix, others = total[: len(asked)], total[len(asked) :]
        return torch.cat([(prefix + asked).to(grad.dtype), others]), None, None, None, None
