"""Layers that keep nothing but what enters them, and are computed again for their gradient.

Gradient checkpointing (Chen et al., 2016, Training Deep Nets with Sublinear Memory Cost): the
outcome is the same, dropout included, for the time of one more forward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

Checkpoint = Callable[..., Any]
"""(layer's forward, *its inputs) -> its output, to be computed again."""
PLAIN: Checkpoint = functools.partial(checkpoint, use_reentrant=False)
"""torch's own, which draws the same dropout again."""


def repeated_layers(model: nn.Module) -> list[Any]:
    """The layers of a model that can be computed again, in its order; empty where none can."""
    return [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]


def recompute(layer: Any, by: Checkpoint = PLAIN) -> None:
    """Have a layer computed again while it is trained; transformers calls `by` for it."""
    layer.gradient_checkpointing, layer._gradient_checkpointing_func = True, by


def keep(layer: Any) -> None:
    """Have a layer keep what its gradient needs."""
    layer.gradient_checkpointing = False
