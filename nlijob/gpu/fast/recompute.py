"""Gradient checkpointing within a CUDA graph, with the same dropout in both passes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from nlijob.gpu.fast.dropout import drops
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.recompute import keep, recompute, repeated_layers

Context = Callable[[], AbstractContextManager[None]]


class RecomputedLayers:
    """A model's repeated layers with gradient checkpointing.

    To draw the same dropout again, torch's checkpoint reads the generator's state on the host,
    which is impossible in a graph. Here each layer has two generators, one for the forward pass and
    one for its recomputation. They have the same seed and draw the same numbers in the same order.
    """

    def __init__(self, model: nn.Module, device: torch.device, context: Context) -> None:
        """`context`: entered when a layer is recomputed; in the forward pass it is entered already.

        Raises Unsupported where the model has no such layers.
        """
        self._layers = repeated_layers(model)
        if not self._layers:
            raise Unsupported("the model has no layers that support gradient checkpointing")
        self._device = device
        self._context = context
        # nothing is captured on a CPU, where torch's own checkpoint works
        own = device.type == "cuda" and any(map(drops, model.modules()))
        self._pairs = [
            (torch.Generator(device), torch.Generator(device)) for _ in self._layers if own
        ]
        for number, layer in enumerate(self._layers):
            recompute(layer, self._by(number))

    @property
    def generators(self) -> list[torch.Generator]:
        """The generators that a graph with these layers uses."""
        return [generator for pair in self._pairs for generator in pair]

    def seed(self) -> None:
        """Seed every layer's generators from the default one."""
        seeds = torch.randint(2**62, (len(self._pairs),)).tolist()
        for pair, seed in zip(self._pairs, seeds, strict=True):
            for generator in pair:
                generator.manual_seed(seed)

    def undo(self) -> None:
        """Stop checkpointing: the layers keep their activations again."""
        for layer in self._layers:
            keep(layer)

    def _by(self, number: int) -> Callable[..., Any]:
        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            if not self._pairs:
                return contextlib.nullcontext(), self._context()
            first, again = self._pairs[number]
            return _drawn_from(first, self._device), self._within(again)

        def run(layer: Callable[..., Any], *inputs: Any) -> Any:
            # recompute to the end of the layer, or its two generators would diverge
            with set_checkpoint_early_stop(False):
                return checkpoint(
                    layer,
                    *inputs,
                    use_reentrant=False,
                    preserve_rng_state=not self._pairs and self._device.type == "cpu",
                    context_fn=contexts,
                )

        return run

    @contextlib.contextmanager
    def _within(self, generator: torch.Generator) -> Iterator[None]:
        with self._context(), _drawn_from(generator, self._device):
            yield


@contextlib.contextmanager
def _drawn_from(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Use a generator in place of the GPU's default one."""
    default: Any = torch.cuda.default_generators[device.index]
    before = default.graphsafe_get_state()
    default.graphsafe_set_state(generator)
    try:
        yield
    finally:
        default.graphsafe_set_state(before)
