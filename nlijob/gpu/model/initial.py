"""The weights with which a training begins, drawn from its seed.

They are the ones that loading the model with that seed gives, so that a training does not depend on
those before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from nlijob.records.job import HeadOrigin

ADAPTER = "default"


class FirstWeights:
    """Draws the weights with which trainings begin, and keeps the last that it drew.

    So those of a search's candidates, which begin alike, are drawn once for each shape.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="first weights")
        self._drawn_for: object = None
        self._drawing: Future[dict[str, Tensor]] = Future()

    def begin(self, model: Any, seed: int, shape: object) -> None:
        """Begin to draw the adapter's weights in the background; `shape` is that of the adapter."""
        if self._drawn_for != (seed, shape):
            self._drawing = self._thread.submit(_drawn, list(_layers(model)), seed)
            self._drawn_for = seed, shape

    def of(
        self, model: Any, head: HeadOrigin | None, seed: int, shape: object
    ) -> dict[str, Tensor]:
        """The `initial_weights` of a model whose adapter has this shape; not to be changed."""
        self.begin(model, seed, shape)
        return _of_head(model, head, seed) | self._drawing.result()


def initial_weights(model: Any, head: HeadOrigin | None, seed: int) -> dict[str, Tensor]:
    """The trained weights of an adapted model before its first step, by their names in the model.

    The adapter's are in host memory, whatever the model's device is. `head`: where the head's
    weights come from; those of a new one are drawn. The model itself stays as it is; the state of
    torch's generators does not.
    """
    return _of_head(model, head, seed) | _drawn(list(_layers(model)), seed)


def draw_head(model: Any, module: nn.Module) -> None:
    """Initialise a module as the library does for one that the checkpoint lacks."""
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            parameter._is_hf_initialized = False  # type: ignore[attr-defined]
        model._init_weights(part)


@torch.no_grad()
def _of_head(model: Any, head: HeadOrigin | None, seed: int) -> dict[str, Tensor]:
    """The first weights of a trained head; those of a new one are drawn as the library does."""
    torch.manual_seed(seed)
    weights: dict[str, Tensor] = {}
    wrappers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, peft.utils.ModulesToSaveWrapper)
    }
    for name, wrapper in sorted(wrappers.items()):
        first = deepcopy(wrapper.original_module)
        if head and any(name.endswith(f".{module}") for module in head.new):
            draw_head(model.get_base_model(), first)
        trained = wrapper.modules_to_save[ADAPTER]
        for part, weight in first.named_parameters():
            own = trained.get_parameter(part)
            weights[f"{name}.modules_to_save.{ADAPTER}.{part}"] = weight.to(own.dtype)
    return weights


@dataclass(frozen=True)
class _Layer:
    """What the first weights of a LoRA layer depend on, besides the seed."""

    name: str
    rank: int
    inputs: int
    outputs: int
    dtype: torch.dtype
    """In which the library makes them before it holds them in float32."""


def _layers(model: Any) -> Iterator[_Layer]:
    """The LoRA layers in the order in which the library makes them."""
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            base = layer.get_base_layer()
            dtype = getattr(base, "compute_dtype", base.weight.dtype)  # of 4-bit layers
            made_in = dtype if dtype and dtype.is_floating_point else torch.float32
            rank, inputs, outputs = layer.r[ADAPTER], layer.in_features, layer.out_features
            yield _Layer(name, rank, inputs, outputs, made_in)


def _drawn(layers: Sequence[_Layer], seed: int) -> dict[str, Tensor]:
    """The first weights of LoRA layers, by their names in the model.

    They are the numbers that the library's own layers begin with, without the layers around them,
    which take longer to make than they do. For each, two linear layers draw A and B as they are
    made; then the library draws A again and clears B.
    """
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for layer in layers:
        first = torch.empty(layer.rank, layer.inputs)
        for weight in (first, torch.empty(layer.outputs, layer.rank), first):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
        weights[f"{layer.name}.lora_A.{ADAPTER}.weight"] = first.to(layer.dtype).float()
        weights[f"{layer.name}.lora_B.{ADAPTER}.weight"] = torch.zeros(layer.outputs, layer.rank)
    return weights
