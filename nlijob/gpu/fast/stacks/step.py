"""What a projection reads and writes in some layers, in buffers that are allocated once a pass."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nlijob.gpu.fast import kernels
from nlijob.gpu.fast.stacks.projection import Projection

Leaves = Sequence[tuple[Tensor, Tensor]]
"""A and B [layers, ...] of each adapter."""


class Buffers:
    """Values of some layers, or of one at a time."""

    def __init__(self, values: Tensor) -> None:
        """values: [layers or 1, ...]"""
        self.all = values

    def __getitem__(self, number: int) -> Tensor:
        """The values of a layer, which replace an earlier layer's where only one is kept."""
        return self.all[min(number, len(self.all) - 1)]


class Dropout:
    """Dropout of one projection's input, for each of its adapters, in some layers."""

    def __init__(self, like: Tensor, masks: Tensor, share: float, kept: int) -> None:
        """masks: [layers, adapters, tokens, inputs], 1 where a value is kept."""
        self.masks, self.scale = masks, 1 / (1 - share)
        self.dropped = Buffers(like.new_empty(kept, *masks.shape[1:]))

    def __call__(self, number: int, x: Tensor) -> Tensor:
        """The input of a layer after dropout, [adapters, tokens, inputs]."""
        dropped = self.dropped[number]
        kernels.drop(x, self.masks[number], self.scale, dropped)
        return dropped


class Step:
    """What one projection reads and writes in some layers, forward and backward."""

    def __init__(
        self,
        projection: Projection,
        like: Tensor,
        layers: range,
        tokens: int,
        keep: bool,
        keeps_output: bool,
        given: Tensor | None = None,
    ) -> None:
        """`keep`: a backward pass follows. What neither it nor an adapter's gradient needs is of
        one layer only.

        `keeps_output`: the backward pass needs the output, until the gradient replaces it. `given`:
        the inputs, where these are kept in any case.
        """
        self.projection, self._layers = projection, layers
        kept = len(layers) if keep else 1
        adapted = kept if projection.ranks else 1
        inputs, outputs, ranks = projection.inputs, projection.outputs, projection.ranks
        self.given = Buffers(like.new_empty(adapted, tokens, inputs) if given is None else given)
        """The input, which is written here."""
        self.y = Buffers(like.new_empty(kept if keeps_output else adapted, tokens, outputs + ranks))
        if keep:
            self._d = Buffers(like.new_empty(adapted, tokens, inputs + ranks))
        self.dropout: Dropout | None = None

    def output(self, number: int) -> Tensor:
        """The output of a layer without the inner values, or its gradient, [tokens, outputs]."""
        return self.y[number][:, : self.projection.outputs]

    def forward(self, number: int, adapts: bool, adds: bool = True) -> Tensor:
        """Compute the output of a layer from `given`; see `Projection.forward`."""
        x, y = self.given[number], self.y[number]
        dropped = self.dropout(number, x) if self.dropout and adapts else None
        self.projection.forward(self._layers[number], x, y, adapts, dropped, adds)
        return self.output(number)

    def backward(self, number: int) -> Tensor:
        """Gradient of the input of a layer, from that of its output, which is in its place."""
        d, drops = self._d[number], self.dropout
        masks, scale = (drops.masks[number], drops.scale) if drops else (None, 1.0)
        layer = self._layers[number]
        self.projection.backward(layer, self.output(number), d, masks, scale)
        return d[:, : self.projection.inputs]

    def inner_backward(self, number: int) -> None:
        """As `backward`, where the gradient of the input is not needed."""
        layer = self._layers[number]
        self.projection.inner_backward(layer, self.output(number), self._d[number])

    def gradients(self, out: Leaves) -> None:
        """Write the gradients of the adapters in these layers."""
        given = self.dropout.dropped.all if self.dropout else self.given.all
        d_y = self.y.all[..., : self.projection.outputs]
        self.projection.gradients(given, self.y.all, d_y, self._d.all, out)
