"""The weights with which a training begins, drawn from its seed.

They are the ones that loading the model with that seed gives, so that a training does not depend on
those before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from nlijob.records.job import HeadOrigin

ADAPTER = "default"
PARTS = ("lora_A", "lora_B")


class FirstWeights:
    """Draws the weights with which trainings begin, and keeps the last that it drew.

    All candidates of a search begin alike, so that theirs are drawn once for each shape.
    """

    def __init__(self) -> None:
        self._drawn_for: object = None
        self._weights: dict[str, Tensor] = {}

    def of(
        self, model: Any, head: HeadOrigin | None, seed: int, shape: object
    ) -> dict[str, Tensor]:
        """The `initial_weights` of a model whose adapter has this shape; not to be changed."""
        if self._drawn_for != (seed, shape):
            self._weights = initial_weights(model, head, seed)
            self._drawn_for = seed, shape
        return self._weights


@torch.no_grad()
def initial_weights(model: Any, head: HeadOrigin | None, seed: int) -> dict[str, Tensor]:
    """The trained weights of an adapted model before its first step, by their names in the model.

    The adapter's are in host memory, whatever the model's device is. `head`: where the head's
    weights come from; those of a new one are drawn. The model itself stays as it is; the state of
    torch's generators does not.
    """
    torch.manual_seed(seed)
    weights = dict(_of_head(model, set(head.new) if head else set()))
    torch.manual_seed(seed)
    return weights | dict(_of_adapter(model))


def draw_head(model: Any, module: nn.Module) -> None:
    """Initialise a module as the library does for one that the checkpoint lacks."""
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            parameter._is_hf_initialized = False  # type: ignore[attr-defined]
        model._init_weights(part)


def _of_head(model: Any, new: set[str]) -> Iterator[tuple[str, Tensor]]:
    base = model.get_base_model()
    wrappers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, peft.utils.ModulesToSaveWrapper)
    }
    for name, wrapper in sorted(wrappers.items()):
        first = deepcopy(wrapper.original_module)
        if any(name.endswith(f".{module}") for module in new):
            draw_head(base, first)
        trained = wrapper.modules_to_save[ADAPTER]
        for part, weight in first.named_parameters():
            own = trained.get_parameter(part)
            yield f"{name}.modules_to_save.{ADAPTER}.{part}", weight.to(own.dtype)


def _of_adapter(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Each layer's first weights, in the order in which the library adapts the layers.

    They are the numbers that the library's own layer begins with, without the layer around them,
    which takes longer to make than they do. Two linear layers draw A and B as they are made; then
    the library draws A again and clears B.
    """
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        rank = layer.r[ADAPTER]
        first = torch.empty(rank, layer.in_features)
        for weight in (first, torch.empty(layer.out_features, rank), first):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        if dtype := _made_in(layer.get_base_layer()):
            first = first.to(dtype).float()
        zeros = torch.zeros(layer.out_features, rank)
        for part, weight in zip(PARTS, (first, zeros), strict=True):
            yield f"{name}.{part}.{ADAPTER}.weight", weight


def _made_in(base: Any) -> torch.dtype | None:
    """The type in which the library makes a layer's adapter before it holds that in float32.

    None: in float32 from the first.
    """
    dtype: torch.dtype | None = getattr(base, "compute_dtype", base.weight.dtype)  # of 4-bit layers
    return dtype if dtype and dtype.is_floating_point else None
