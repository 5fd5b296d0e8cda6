"""RMS norms of decoder layers, and what they keep in some layers for a backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlijob.gpu.fast import gated_kernels
from nlijob.gpu.fast.gated_kernels import HeadNorms, Heads
from nlijob.gpu.fast.stacks.step import Buffers


@dataclass(frozen=True)
class Norm:
    """The weights of one RMS norm in all layers."""

    weight: Sequence[Tensor]
    """[width] in each layer."""
    epsilon: float


@dataclass(frozen=True)
class Norms:
    """The norms of decoder layers; each family has some of them."""

    attention: Norm | None = None
    """Of the input of query, key and value."""
    attention_output: Norm | None = None
    """Of the output of attention, before the residual is added."""
    mlp: Norm | None = None
    """Of the MLP's input."""
    mlp_output: Norm | None = None
    """Of the MLP's output, before the residual is added."""
    heads: Sequence[HeadNorms] | None = None
    """Of each head of query and key, in each layer."""
    all_heads: Sequence[HeadNorms] | None = None
    """Of all heads of query together, and of key, in each layer."""


class SumNorm:
    """A sum with the residual, and its norm for the projection that follows, in some layers.

    Without a norm, the projection reads the sum itself.
    """

    def __init__(self, norm: Norm | None, like: Tensor, layers: range, shape: torch.Size) -> None:
        """`shape`: [layers that are kept, tokens, width]."""
        self._norm, self._layers = norm, layers
        self.total = Buffers(like.new_empty(shape))
        self.scale = Buffers(like.new_empty(shape[:2], dtype=torch.float32))

    def given(self) -> Tensor | None:
        """What the projection reads, if that is the sum."""
        return None if self._norm else self.total.all

    def forward(
        self, number: int, x: Tensor, z: Tensor | None, bias: Tensor | None, normed: Tensor
    ) -> None:
        """Write x + z + bias to `total`, and its norm to `normed`; see `residual_rms`."""
        total = self.total[number]
        if self._norm:
            weight = self._norm.weight[self._layers[number]]
            to = (total, normed, self.scale[number])
            gated_kernels.residual_rms(x, z, bias, weight, self._norm.epsilon, *to)
        elif z is not None:
            torch.add(x, z if bias is None else z + bias, out=total)

    def backward(self, number: int, d_normed: Tensor, d_total: Tensor, out: Tensor) -> None:
        """Write the gradient of the sum to `out`, from those of its two uses."""
        if self._norm:
            weight = self._norm.weight[self._layers[number]]
            given = (self.total[number], self.scale[number], weight, d_normed, d_total, out)
            gated_kernels.rms_backward(*given)
        else:
            torch.add(d_normed, d_total, out=out)


class OutputNorm:
    """The norm of a projection's output, before the residual is added, in some layers."""

    def __init__(
        self,
        norm: Norm,
        bias: Sequence[Tensor] | None,
        like: Tensor,
        layers: range,
        shape: torch.Size,
    ) -> None:
        """`bias`: of the projection, in all layers. `shape`: see `SumNorm`."""
        self._norm, self._bias, self._layers = norm, bias, layers
        self._normed = like.new_empty(shape[1:])
        self._scale = Buffers(like.new_empty(shape[:2], dtype=torch.float32))

    def forward(self, number: int, z: Tensor) -> Tensor:
        """The norm of an output, which the next call overwrites."""
        weight, bias = self._of(number)
        given = (self._norm.epsilon, self._normed, self._scale[number])
        gated_kernels.rms(z, bias, weight, *given)
        return self._normed

    def backward(self, number: int, z: Tensor, d_normed: Tensor) -> None:
        """Replace the output z by its gradient."""
        weight, bias = self._of(number)
        gated_kernels.rms_gradient(z, bias, self._scale[number], weight, d_normed)

    def _of(self, number: int) -> tuple[Tensor, Tensor | None]:
        layer = self._layers[number]
        return self._norm.weight[layer], self._bias[layer] if self._bias else None


class WideNorms:
    """Norms of query and of key, each over all of its heads, in all layers."""

    def __init__(
        self,
        norms: Sequence[HeadNorms],
        bias: Sequence[Tensor] | None,
        heads: Heads,
        like: Tensor,
        shape: torch.Size,
    ) -> None:
        """`bias`: of query, key and value in each layer. `shape`: see `SumNorm`."""
        self._norms, self._bias, self._heads = norms, bias, heads
        self._scale = Buffers(like.new_empty(shape[0], 2, shape[1], dtype=torch.float32))

    def forward(self, number: int, y: Tensor, out: Tensor) -> None:
        """Write query and key after bias and norm, and value after its bias, to `out`."""
        norms, (query, key, value) = self._norms[number], self._parts(y)
        biases, to = self._biases(number), self._parts(out)
        scales = self._scale[number]
        gated_kernels.rms(query, biases[0], norms.query, norms.epsilon, to[0], scales[0])
        gated_kernels.rms(key, biases[1], norms.key, norms.epsilon, to[1], scales[1])
        to[2].copy_(value if biases[2] is None else value + biases[2])

    def backward(self, number: int, y: Tensor, d_out: Tensor) -> None:
        """Replace y by its gradient, from that of `forward`'s output."""
        norms, (query, key, value) = self._norms[number], self._parts(y)
        biases, (d_query, d_key, d_value) = self._biases(number), self._parts(d_out)
        scales = self._scale[number]
        gated_kernels.rms_gradient(query, biases[0], scales[0], norms.query, d_query)
        gated_kernels.rms_gradient(key, biases[1], scales[1], norms.key, d_key)
        value.copy_(d_value)

    def _parts(self, y: Tensor) -> tuple[Tensor, ...]:
        """Columns of query, key and value."""
        heads = self._heads
        return torch.split(y, [heads.query_width, heads.key_width, heads.key_width], -1)

    def _biases(self, number: int) -> tuple[Tensor | None, ...]:
        return self._parts(self._bias[number]) if self._bias else (None, None, None)
