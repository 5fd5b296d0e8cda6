"""The weights with which a training begins, drawn from its seed.

They are the ones that loading the model with that seed gives, so that a training does not depend on
those before it.
"""

from __future__ import annotations

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


@torch.no_grad()
def initial_weights(model: Any, head: HeadOrigin | None, seed: int) -> dict[str, Tensor]:
    """The trained weights of an adapted model before its first step, by their names in the model.

    `head`: where the head's weights come from; those of a new one are drawn. The model itself stays
    as it is; the state of torch's generators does not.
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
    """The library's own first weights of each layer, in the order in which it adapts them."""
    settings = model.peft_config[ADAPTER]
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        new = peft.tuners.lora.Linear(
            layer.get_base_layer(),
            ADAPTER,
            config=settings,
            r=settings.r,
            lora_alpha=settings.lora_alpha,
        )
        for part in PARTS:
            yield f"{name}.{part}.{ADAPTER}.weight", getattr(new, part)[ADAPTER].weight.float()
