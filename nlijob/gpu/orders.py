"""How the lead of a group has the other processes do the same work: by orders that it gives first.

`nlijob.gpu.following` has what they do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from nlijob.gpu.checkpoints import trained_weights
from nlijob.gpu.group import ALONE, Group


class Orders:
    """The group that a session works in, and what its processes have alike."""

    def __init__(self, group: Group, model: Callable[[], Any]) -> None:
        """`model` gives the adapted model, once it is loaded."""
        self.group = group
        """The processes that work together now."""
        self.size = group.size
        """Number of processes of the job."""
        self._model = model
        self._weights_differ = True
        self._is_base = False
        self._dealt = 0

    @property
    def is_base(self) -> bool:
        """Whether the base model is in use, with the adapter switched off."""
        return self._is_base

    def give(self, order: str, *values: Any) -> None:
        """Have the other processes do this; does nothing in these, or without any."""
        if self.group.is_shared and self.group.is_lead:
            self.group.share((order, values))

    def give_with_weights(self, order: str, *values: Any) -> None:
        """Give an order for which all must have the same trained weights."""
        if self._weights_differ and not self._is_base and self.group.is_shared:
            self.give("weights")
            self.exchange_weights()
        self.give(order, *values)

    def end(self) -> None:
        """Tell the other processes that there is no more work."""
        self.group.share(None)

    def weights_change(self) -> None:
        """Call it where this process alone changes the trained weights."""
        self._weights_differ = True

    @torch.no_grad()
    def exchange_weights(self) -> None:
        """Give the lead's trained weights to every process; all call this."""
        by_dtype: dict[torch.dtype, list[torch.Tensor]] = {}
        for weight in trained_weights(self._model()).values():
            by_dtype.setdefault(weight.dtype, []).append(weight)
        for weights in by_dtype.values():
            flat = torch.cat([weight.detach().reshape(-1) for weight in weights])
            self.group.send(flat)
            parts = torch.split(flat, [weight.numel() for weight in weights])
            for weight, part in zip(weights, parts, strict=True):
                weight.copy_(part.view_as(weight))
        self._weights_differ = False

    @contextlib.contextmanager
    def base_model(self) -> Iterator[None]:
        """The base model instead of the tuned one, in all processes."""
        self._is_base = True
        try:
            with self._model().disable_adapter():
                yield
        finally:
            self._is_base = False

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Work without the other processes."""
        group, self.group = self.group, ALONE
        try:
            yield
        finally:
            self.group, self._weights_differ = group, True

    def next_deal(self) -> int:
        """A number for the next pieces of work that are dealt out."""
        self._dealt += 1
        return self._dealt
