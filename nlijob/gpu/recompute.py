"""Gradient checkpointing: a layer keeps its inputs only and recomputes its activations.

Chen et al., 2016, Training Deep Nets with Sublinear Memory Cost. The result is the same, dropout
included; it costs one more forward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

Checkpoint = Callable[..., Any]
"""(a layer's forward, *its inputs) -> its output, recomputed in the backward pass."""
PLAIN: Checkpoint = functools.partial(checkpoint, use_reentrant=False)
"""torch's own checkpoint, which draws the same dropout again."""


def repeated_layers(model: nn.Module) -> list[Any]:
    """The layers of a model that support gradient checkpointing, in order; may be empty."""
    return [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]


def recompute(layer: Any, by: Checkpoint = PLAIN) -> None:
    """Checkpoint a layer in training; transformers calls `by` with its forward and its inputs."""
    layer.gradient_checkpointing, layer._gradient_checkpointing_func = True, by


def keep(layer: Any) -> None:
    """Stop checkpointing a layer: it keeps its activations again.

    It refers no longer to the function that did so, and to the memory that this may hold.
    """
    layer.gradient_checkpointing, layer._gradient_checkpointing_func = False, PLAIN
