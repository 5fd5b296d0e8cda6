"""Packed rows of an encoder: attention in both directions, and a head that reads whole rows.

An encoder's head takes the values of a row's first token, or their mean over the row. In a pack all
rows lie in one sequence. So where the encoder's layers end, its output is replaced by one that has
each row on its own, and only the token that the head takes. What follows (pooler, dropout, head) is
the model's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.utils import ModelOutput

from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.packing import PackShape, PackView
from nlijob.gpu.model.structure import layer_of


class Encoder:
    """What packs need to know about a model whose attention looks in both directions."""

    def __init__(self, base: Any) -> None:
        """`base`: the model without PEFT's wrapper. Raises Unsupported where its layers and its
        head are one."""
        self._whole = _around_layers(base)
        self._padding = _padding_of_positions(base)
        self._takes_mean = getattr(base.config, "classifier_pooling", "") == "mean"

    def inputs(self, packed: PackView, shape: PackShape) -> dict[str, Tensor | bool]:
        """Inputs of the model's forward besides those of any pack, or in place of them."""
        positions = packed.positions.long()
        if self._padding is not None:
            positions = _counted(packed, self._padding)
        given: dict[str, Tensor | bool] = {
            "position_ids": positions.unsqueeze(0),
            "is_bidirectional": True,
        }
        return given | {"token_type_ids": packed.types.unsqueeze(0)} if shape.has_types else given

    @contextlib.contextmanager
    def one_token_a_row(self, packed: PackView) -> Iterator[None]:
        """Within this context the encoder returns [rows, 1, width] rather than [1, tokens, width].

        The one token is a row's first, or the mean of all its tokens, as the head takes it.
        """

        def replace(module: nn.Module, inputs: Any, output: Any) -> Any:
            hidden = output if isinstance(output, Tensor) else output[0]
            rows = (_means if self._takes_mean else _firsts)(hidden[0], packed).unsqueeze(1)
            if isinstance(output, Tensor):
                return rows
            if isinstance(output, ModelOutput):
                output[next(iter(output))] = rows
                return output
            return (rows, *output[1:])

        hook = self._whole.register_forward_hook(replace)
        try:
            yield
        finally:
            hook.remove()


def _means(hidden: Tensor, packed: PackView) -> Tensor:
    """Mean of each row's tokens: [tokens, width] -> [rows, width]."""
    place = torch.arange(len(hidden), device=hidden.device)
    first, last = _first_tokens(packed, len(hidden)), packed.last
    own = (first[:, None] <= place) & (place <= last[:, None])
    # a missing row may have no tokens, and its mean must be a number nevertheless
    return own.to(hidden.dtype) @ hidden / own.sum(1, keepdim=True).clamp(min=1)


def _firsts(hidden: Tensor, packed: PackView) -> Tensor:
    """Each row's first token: [tokens, width] -> [rows, width]."""
    # `embedding` has a fast backward pass that adds up in a fixed order
    return functional.embedding(_first_tokens(packed, len(hidden)), hidden)


def _first_tokens(packed: PackView, tokens: int) -> Tensor:
    """Index of each row's first token, [rows]; any token for a missing row."""
    return packed.bounds[: len(packed.last)].clamp(max=tokens - 1)


def _counted(packed: PackView, padding: int) -> Tensor:
    """Positions in RoBERTa's manner, [tokens], int64.

    They count from `padding` + 1. A token that is the padding token itself is not counted, and has
    `padding` for its position.
    """
    is_counted = (packed.ids != padding).long()
    counts = is_counted.cumsum(0)
    start = torch.arange(len(counts), device=counts.device) - packed.positions
    before = (counts - is_counted)[start]
    return (counts - before) * is_counted + padding


def _around_layers(base: Any) -> nn.Module:
    """The module whose output is that of all layers. Raises Unsupported where there is none."""
    attends = (name for name, module in base.named_modules() if hasattr(module, "is_causal"))
    around = layer_of(next(attends)).rpartition(".")[0]
    while around and isinstance(base.get_submodule(around), nn.ModuleList):
        around = around.rpartition(".")[0]
    if not around:
        raise Unsupported("the model's layers do not stand apart from its head")
    module: nn.Module = base.get_submodule(around)
    return module


def _padding_of_positions(base: Any) -> int | None:
    """The padding token's number where positions are counted from behind it, or None.

    Models in RoBERTa's manner leave it free in the embedding of positions.
    """
    for name, module in base.named_modules():
        if isinstance(module, nn.Embedding) and "position" in name.rpartition(".")[2]:
            return None if module.padding_idx is None else int(module.padding_idx)
    return None
