"""A linear layer of every decoder layer, with LoRA adapters on it (Hu et al., 2021).

    [y, inner] = x [W, A]'          y += inner B'
    [d_x, d_inner] = d_y [W B]      d_x += d_inner A

One weight holds W, with the As below it and the Bs beside it, so that one product computes a pass
and the adapters' inner values. Several linear layers with the same input are one projection: their
Ws lie below each other, and each B beside the rows of its own layer, with zeros elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nlijob.gpu.fast import low_rank

ALIGNED = 64
"""Rows of weights begin at multiples of so many values: at the begin of a GPU's cache lines."""


class Projection:
    """The weights of one projection in all layers; zero until they are filled."""

    def __init__(
        self,
        layers: int,
        inputs: int,
        outputs: int,
        adapted: Sequence[slice],
        rank: int,
        like: Tensor,
    ) -> None:
        """`adapted`: the outputs of each adapter. `like`: a tensor of the device and dtype.

        Raises torch.OutOfMemoryError.
        """
        self.layers, self.inputs, self.outputs = layers, inputs, outputs
        self.adapted, self.rank = list(adapted), rank
        self.ranks = len(self.adapted) * rank
        """Ranks of all adapters."""
        columns = inputs + self.ranks
        stride = -(-columns // ALIGNED) * ALIGNED
        self.weight = like.new_zeros(layers, outputs + self.ranks, stride)[..., :columns]
        self.base = self.weight[:, :outputs, :inputs]
        self.a = self.weight[:, outputs:, :inputs]
        """[layers, ranks, inputs]: the As below each other."""
        self.b = self.weight[:, :outputs, inputs:]
        """[layers, outputs, ranks]: each B beside its outputs."""

    def ranks_of(self, number: int) -> slice:
        """The ranks of an adapter among all."""
        return slice(number * self.rank, (number + 1) * self.rank)

    def first_rank_at(self, output: int) -> int:
        """The first rank of the adapter that has an output, or -1 where none has."""
        for number, outputs in enumerate(self.adapted):
            if outputs.start <= output < outputs.stop:
                return number * self.rank
        return -1

    def place(self, leaves: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Copy the adapters beside the base weights: A [layers, rank, inputs], B likewise."""
        for number, (a, b) in enumerate(leaves):
            self.a[:, self.ranks_of(number)].copy_(a)
            self.b[:, self.adapted[number], self.ranks_of(number)].copy_(b)

    def forward(
        self,
        number: int,
        x: Tensor,
        y: Tensor,
        adapts: bool,
        dropped: Tensor | None,
        adds: bool = True,
    ) -> None:
        """Write the output of layer `number`, and the adapters' inner values, to y's columns.

        y: [tokens, outputs + ranks]. `dropped`: [adapters, tokens, inputs], x after the dropout of
        each adapter, or None without dropout. `adapts`: use the adapters. `adds`: add the inner
        values' products with the Bs; otherwise the caller does.
        """
        adapts = adapts and bool(self.ranks)
        below = self.outputs + (self.ranks if adapts and dropped is None else 0)
        torch.mm(x, self.weight[number, :below, : self.inputs].t(), out=y[:, :below])
        if not adapts:
            return
        out, inner = y[:, : self.outputs], y[:, self.outputs :]
        if dropped is not None:
            a = self._by_adapter(self.a[number])
            torch.bmm(dropped, a.transpose(1, 2), out=self._inner_by_adapter(inner))
        if adds:
            out.addmm_(inner, self.b[number].t())

    def backward(
        self, number: int, d_y: Tensor, d: Tensor, masks: Tensor | None, scale: float
    ) -> None:
        """Write the gradients of layer `number`'s input and of its inner values to d's columns.

        d_y: [tokens, outputs]. d: [tokens, inputs + ranks]. `masks`: [adapters, tokens, inputs] of
        dropout, whose kept values were multiplied by `scale`, or None.
        """
        torch.mm(d_y, self.weight[number, : self.outputs], out=d)
        if not self.ranks:
            return
        d_x, d_inner = d[:, : self.inputs], d[:, self.inputs :]
        if masks is None:
            d_x.addmm_(d_inner, self.a[number])
            return
        low_rank.add(d_x, d_inner, self._by_adapter(self.a[number]), masks, scale)

    def inner_backward(self, number: int, d_y: Tensor, d: Tensor) -> None:
        """As `backward`, where the gradient of the input is not needed."""
        if self.ranks:
            torch.mm(d_y, self.b[number], out=d[:, self.inputs :])

    def gradients(
        self, given: Tensor, y: Tensor, d_y: Tensor, d: Tensor, out: Sequence[tuple[Tensor, Tensor]]
    ) -> None:
        """Write the gradients of A and B of all adapters in some layers to `out`.

        given: [layers, tokens, inputs] or, after dropout, [layers, adapters, tokens, inputs]. y, d:
        as `forward` and `backward` wrote them. d_y: [layers, tokens, outputs].
        """
        for number, (d_a, d_b) in enumerate(out):
            ranks = self.ranks_of(number)
            x = given if given.dim() == 3 else given[:, number]
            d_inner, inner = (part[..., -self.ranks :][..., ranks] for part in (d, y))
            torch.bmm(d_inner.transpose(1, 2), x, out=d_a)
            torch.bmm(d_y[..., self.adapted[number]].transpose(1, 2), inner, out=d_b)

    def _by_adapter(self, a: Tensor) -> Tensor:
        return a.view(-1, self.rank, self.inputs)

    def _inner_by_adapter(self, inner: Tensor) -> Tensor:
        """[tokens, ranks] -> [adapters, tokens, rank], a view."""
        return inner.view(len(inner), -1, self.rank).transpose(0, 1)
