"""The adapter in one buffer: master weights in float32, a copy in the compute dtype, gradients.

PEFT's own parameters become views of the master buffer, so PEFT saves and loads exactly what is
trained. Clipping, casting and clearing take one kernel each, whatever the number of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nlijob.gpu.fast.layers import ADAPTER

LoRAGroup = tuple[Sequence[Any], Tensor, Tensor]
"""LoRA layers, their As [layers, r, in] and their scaled Bs [layers, out, r]. For a single layer,
these are [r, in] and [out, r]."""


class FlatAdapter:
    """All trained parameters of a model in this order: every A, every B, the others."""

    def __init__(
        self,
        groups: Sequence[Sequence[Any]],
        others: Sequence[nn.Parameter],
        dtype: torch.dtype,
    ) -> None:
        """`groups`: PEFT's LoRA layers; a group is computed together, and all have one scaling.

        `others`: the parameters of a trained head.
        """
        layers = [layer for group in groups for layer in group]
        firsts = [layer.lora_A[ADAPTER].weight for layer in layers]
        seconds = [layer.lora_B[ADAPTER].weight for layer in layers]
        self._scaling = float(layers[0].scaling[ADAPTER])
        self.parameters: list[nn.Parameter] = [*firsts, *seconds, *others]
        sizes = self._sizes = [parameter.numel() for parameter in self.parameters]
        self._firsts = sum(sizes[: len(firsts)])
        self._lora = self._firsts + sum(sizes[len(firsts) : 2 * len(firsts)])
        self._others = list(others)
        self.master = torch.cat([p.detach().reshape(-1).float() for p in self.parameters])
        self.sums = self.master.new_zeros(len(self.master) + 1)
        """What is added up over the rows of a step: `gradient` and `loss`, views of this buffer."""
        self.gradient, self.loss = self.sums[:-1], self.sums[-1]
        self._computed = self.master.new_empty(self._lora, dtype=dtype)
        self.flat = nn.Parameter(self.master)
        """The master weights as one parameter, which an optimizer updates with one kernel."""
        self.flat.grad = self.gradient
        for parameter, part, gradient in zip(
            self.parameters, self.parts(self.master), self.parts(self.gradient), strict=True
        ):
            parameter.data, parameter.grad = part, gradient
        first_leaves = _leaves(self._computed[: self._firsts], groups, firsts)
        second_leaves = _leaves(self._computed[self._firsts :], groups, seconds)
        self._leaves = [*first_leaves, *second_leaves]
        self.groups: list[LoRAGroup] = list(zip(groups, first_leaves, second_leaves, strict=True))
        """Each group with its As and scaled Bs in the compute dtype, as the layers use them."""
        self.refresh()

    @property
    def seconds(self) -> Tensor:
        """The master weights of all Bs, a view."""
        return self.master[self._firsts : self._lora]

    def parts(self, flat: Tensor) -> list[Tensor]:
        """Views of a tensor laid out like the master weights, one for each of `parameters`."""
        parts = torch.split(flat, self._sizes)
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]

    @torch.no_grad()
    def refresh(self) -> None:
        """Update the copy in the compute dtype from the master weights."""
        self._computed[: self._firsts].copy_(self.master[: self._firsts])
        torch.mul(
            self.seconds,
            self._scaling,
            out=self._computed[self._firsts :],
        )

    def add_gradient(self, loss: Tensor) -> None:
        """Add the gradient of a loss to `gradient`."""
        gradients = torch.autograd.grad(loss, [*self._leaves, *self._others])
        lora = len(self._leaves)
        firsts, end = self._firsts, self._lora
        # no buffer is kept for this: the memory of the activations is free by now
        new = torch.cat([g.reshape(-1) for g in gradients[:lora]])
        self.gradient[:firsts].add_(new[:firsts])
        self.gradient[firsts:end].add_(new[firsts:], alpha=self._scaling)
        if self._others:
            self.gradient[end:].add_(torch.cat([g.reshape(-1) for g in gradients[lora:]]))

    @torch.no_grad()
    def clip(self, max_norm: float) -> Tensor:
        """Scale the gradient to a norm of at most `max_norm`; returns its norm before, a scalar."""
        norm: Tensor = torch.linalg.vector_norm(self.gradient)
        # torch.nn.utils.clip_grad_norm_ adds 1e-6 too, so the result is the same
        self.gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm


def _leaves(
    flat: Tensor, groups: Sequence[Sequence[Any]], weights: Sequence[nn.Parameter]
) -> list[Tensor]:
    """Each group's weights as one leaf tensor for autograd, a view of `flat`."""
    leaves: list[Tensor] = []
    place = done = 0
    for group in groups:
        shape = weights[done].shape
        size = len(group) * shape.numel()
        together = (len(group), *shape) if len(group) > 1 else shape
        part = flat[place : place + size].view(together)
        leaves.append(part.detach().requires_grad_())
        place, done = place + size, done + len(group)
    return leaves
