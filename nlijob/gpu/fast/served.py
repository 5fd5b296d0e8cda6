"""The fused layers that are tried on a model, and their common interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nlijob.gpu.fast.adapter import LoRAGroup
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.layers import LayerPatches
from nlijob.gpu.fast.packing import PackView
from nlijob.gpu.fast.row_dropout import RowMasks
from nlijob.gpu.fast.stacks.llama import LlamaStack
from nlijob.gpu.fast.stacks.phi import PhiStack


class FusedStack(Protocol):
    """All decoder layers of a model, computed together rather than module by module.

    A model with a stack installed returns hidden states of the rows' last tokens only.
    """

    def __init__(
        self,
        model: nn.Module,
        adapters: Sequence[LoRAGroup],
        dtype: torch.dtype,
        row_masks: RowMasks | None = None,
    ) -> None:
        """`adapters`: the adapters of `groups`, in its order.

        `row_masks`: where dropout goes by row; the first calls are the stack's, one for each LoRA
        layer. Raises torch.OutOfMemoryError.
        """

    @property
    def dense(self) -> Mapping[int, Tensor]:
        """Dequantised weights [out, in] that the stack keeps, by the id of their linear layer."""

    @staticmethod
    def groups(model: nn.Module, device: torch.device, dtype: torch.dtype) -> list[list[Any]]:
        """The LoRA layers that the stack computes; each group shares a buffer.

        Empty where the model is of another kind. Raises Unsupported with the reason where it is of
        this kind and the stack does not work here.
        """

    def install(self, patches: LayerPatches) -> None:
        """Put the stack in place of the model's own layers, until `patches` is undone."""

    def inputs(self, packed: PackView, prefix: int) -> dict[str, Any]:
        """Inputs that the model's forward takes besides those of any pack.

        `prefix`: tokens that all rows share.
        """

    def cost(self, tokens: int) -> float:
        """Time that a pack of this size takes on the GPU, in a unit of its own."""


CANDIDATES: list[type[FusedStack]] = [PhiStack, LlamaStack]
"""The candidates, in the order in which they are tried; the first that fits a model is used."""


def choose(
    model: nn.Module, device: torch.device, dtype: torch.dtype
) -> tuple[type[FusedStack] | None, list[list[Any]], str]:
    """The first candidate that fits a model, its groups of LoRA layers, and why none fits, or "".

    The reason is also empty where no candidate is meant for such a model.
    """
    refused = []
    for candidate in CANDIDATES:
        try:
            groups = candidate.groups(model, device, dtype)
        except Unsupported as error:
            refused.append(str(error))
            continue
        if groups:
            return candidate, groups, ""
    return None, [], "; ".join(refused)
