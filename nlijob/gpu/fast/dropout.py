"""Dropout that on a CPU draws four values from one random number.

One number per value took a fifth of a training step there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

LEVELS = 1 << 16
SMALLEST = -(1 << 63)
"""Smallest 64-bit integer; without it, `random_` draws no negative numbers."""


def mask(values: Tensor, share: float, *copies: int, dtype: torch.dtype | None = None) -> Tensor:
    """A mask [*copies, *values.shape]: 1 where dropout keeps a value and 0 where it drops it.

    A value is dropped with probability `share`, on a CPU rounded to 1/65536. The mask has the dtype
    of `values` by default. A `TorchFunctionMode` may draw in its place.
    """
    if not torch.compiler.is_compiling() and has_torch_function_unary(values):
        drawn: Tensor = handle_torch_function(mask, (values,), values, share, *copies, dtype=dtype)
        return drawn
    kept = values.new_empty(*copies, *values.shape, dtype=dtype)
    if values.device.type != "cpu":
        return kept.bernoulli_(1 - share)
    numbers = torch.empty(-(-kept.numel() // 4), dtype=torch.int64).random_(SMALLEST, None)
    drawn = numbers.view(torch.int16)[: kept.numel()].view(kept.shape)
    return torch.ge(drawn, round(share * LEVELS) - LEVELS // 2, out=kept)


def dropped(values: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Values after dropout, with the rest scaled up, and the mask."""
    if values.device.type != "cpu":
        return torch.native_dropout(values, share, True)
    kept = mask(values, share)
    return (values * kept).mul_(1 / (1 - share)), kept


def drops(module: nn.Module) -> bool:
    """Whether a module drops values in training: as dropout, or as attention of some models."""
    share = module.p if isinstance(module, nn.Dropout) else getattr(module, "attention_dropout", 0)
    return isinstance(share, float) and share > 0


class HostDropout(nn.Module):
    """`nn.Dropout` for a CPU."""

    p: float

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape after dropout."""
        return dropped(values, self.p)[0] if self.training and self.p else values
