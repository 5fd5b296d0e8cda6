"""What all rows of a pack begin with: there once, and seen by every row's attention."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
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
    bounds: Tensor
    """[segments + 1], int32: of the pack's segments."""
    of: int
    """Tokens of the pack."""

    def spread(self, values: Tensor) -> Tensor:
        """[tokens, ...] -> [tokens + prefix * (segments - 1), ...]: the prefix before each segment
        but the first, which has it. Where segments then begin is `spread_bounds`."""
        spread: Tensor = _Spread.apply(values, self)  # type: ignore[no-untyped-call]
        return spread

    @cached_property
    def spread_bounds(self) -> Tensor:
        """[segments + 1], int32."""
        before = torch.arange(-1, len(self.bounds) - 1, device=self.bounds.device).clamp(min=0)
        return (self.bounds + self.tokens * before).int()

    @cached_property
    def source(self) -> Tensor:
        """The pack's token that each spread value is one of."""
        bounds = self.spread_bounds
        size = self.of + self.tokens * (len(bounds) - 2)
        place = torch.arange(size, device=bounds.device, dtype=bounds.dtype)
        segment = torch.searchsorted(bounds, place, right=True) - 1
        offset = place - bounds[segment]
        own = (segment > 0) & (offset >= self.tokens)
        return torch.where(own, self.bounds[segment] + offset - self.tokens, offset)

    @cached_property
    def places(self) -> Tensor:
        """[tokens]: where each token of the pack lies among the spread values, in its own place."""
        token = torch.arange(self.of, device=self.bounds.device, dtype=self.bounds.dtype)
        segment = torch.searchsorted(self.bounds, token, right=True) - 1
        return token + self.tokens * segment

    @cached_property
    def copies(self) -> Tensor:
        """[segments - 1, prefix]: where the prefix lies before each segment but the first."""
        token = torch.arange(self.tokens, device=self.bounds.device)
        return self.spread_bounds[1:-1, None] + token

    @cached_property
    def is_used(self) -> Tensor:
        """[segments - 1]: whether there is anything in the segment."""
        return self.bounds[1:].diff() > 0


class _Spread(torch.autograd.Function):
    """Gradients are summed in an order of their own, the same every time, in float32."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, prefix: Prefix) -> Tensor:
        ctx.prefix = prefix
        return values[prefix.source]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        prefix: Prefix = ctx.prefix
        total = grad[prefix.places]
        copies = grad[prefix.copies].float()
        # nothing looks at the prefix from an empty segment: there may be anything there
        used = prefix.is_used.view(-1, *[1] * (copies.dim() - 1))
        asked = torch.where(used, copies, 0.0).sum(0)
        total[: prefix.tokens] = (total[: prefix.tokens] + asked).to(grad.dtype)
        return total, None
