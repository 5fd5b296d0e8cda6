"""Layers computed again for their gradient within a CUDA graph, with the same dropout."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from nlijob.gpu.fast.errors import NotServed
from nlijob.gpu.recompute import keep, recompute, repeated_layers

Around = Callable[[], AbstractContextManager[None]]


class Recomputed:
    """A model's repeated layers, each computed again when its gradient is taken.

    torch's own way reads the generator's state on the host to draw the same again, which no graph
    can. Here each layer has two generators, one for each time it is computed. They are seeded alike
    and draw alike, so that both are always at the same place.
    """

    def __init__(self, model: nn.Module, device: torch.device, around: Around) -> None:
        """`around`: what a layer is computed within the second time; the first, it is already.

        Raises NotServed where the model has no such layers.
        """
        self._layers = repeated_layers(model)
        if not self._layers:
            raise NotServed("the model has no layers that can be computed again")
        self._device = device
        self._around = around
        drops = any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules())
        # on a CPU nothing is captured, and torch's own way does
        own = device.type == "cuda" and drops
        self._pairs = [
            (torch.Generator(device), torch.Generator(device)) for _ in self._layers if own
        ]
        for number, layer in enumerate(self._layers):
            recompute(layer, self._by(number))

    @property
    def generators(self) -> list[torch.Generator]:
        """What a graph that computes the layers draws from."""
        return [generator for pair in self._pairs for generator in pair]

    def seed(self) -> None:
        """Seed every layer's generators from the default one."""
        seeds = torch.randint(2**62, (len(self._pairs),)).tolist()
        for pair, seed in zip(self._pairs, seeds, strict=True):
            for generator in pair:
                generator.manual_seed(seed)

    def undo(self) -> None:
        """Have the layers keep what their gradient needs."""
        for layer in self._layers:
            keep(layer)

    def _by(self, number: int) -> Callable[..., Any]:
        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            if not self._pairs:
                return contextlib.nullcontext(), self._around()
            first, again = self._pairs[number]
            return _drawn_from(first, self._device), self._within(again)

        def run(layer: Callable[..., Any], *inputs: Any) -> Any:
            # to its end the second time too, or the two generators would part
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
        with self._around(), _drawn_from(generator, self._device):
            yield


@contextlib.contextmanager
def _drawn_from(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Have what is drawn on a GPU come from a generator rather than the default one."""
    default: Any = torch.cuda.default_generators[device.index]
    before = default.graphsafe_get_state()
    default.graphsafe_set_state(generator)
    try:
        yield
    finally:
        default.graphsafe_set_state(before)
