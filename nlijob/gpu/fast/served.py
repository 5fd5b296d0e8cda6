"""The fused layers that are tried on a model, and what each of them must offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nlijob.gpu.fast.adapter import LoRAGroup
from nlijob.gpu.fast.errors import NotServed
from nlijob.gpu.fast.layers import Installed
from nlijob.gpu.fast.stacks.phi import PhiStack


class FusedStack(Protocol):
    """All decoder layers of a model, computed together rather than one module after the other.

    The model that it is installed in returns hidden states of the rows' last tokens only.
    """

    def __init__(self, model: nn.Module, adapters: Sequence[LoRAGroup], dtype: torch.dtype) -> None:
        """`adapters`: those of `groups`, in its order. Raises torch.OutOfMemoryError."""

    @property
    def dense(self) -> Mapping[int, Tensor]:
        """Dequantised weights [out, in] that the stack keeps, by the id of their linear layer."""

    @staticmethod
    def groups(model: nn.Module, device: torch.device, dtype: torch.dtype) -> list[list[Any]]:
        """The LoRA layers that the stack computes, those with a common buffer together.

        Empty where the model is of another kind. Raises NotServed with the reason where it is of
        this kind and the stack still cannot serve it here.
        """

    def install(self, installed: Installed) -> None:
        """Put the stack in place of the model's own layers, until `installed` is undone."""

    def inputs(self, last: Tensor, prefix: int) -> dict[str, Any]:
        """What the model's forward takes beside the pack.

        `last`: [rows], int64, the last token of each row. `prefix`: tokens that all rows share.
        """

    def cost(self, tokens: int) -> float:
        """Time that a pack of this size takes on the GPU, in a unit of its own."""


CANDIDATES: list[type[FusedStack]] = [PhiStack]
"""In the order in which they are tried; the first that serves a model is used."""


def choose(
    model: nn.Module, device: torch.device, dtype: torch.dtype
) -> tuple[type[FusedStack] | None, list[list[Any]], str]:
    """The first candidate that serves a model, with its LoRA layers; else why none does.

    The reason is empty where no candidate is meant for such a model.
    """
    refused = []
    for candidate in CANDIDATES:
        try:
            groups = candidate.groups(model, device, dtype)
        except NotServed as error:
            refused.append(str(error))
            continue
        if groups:
            return candidate, groups, ""
    return None, [], "; ".join(refused)
