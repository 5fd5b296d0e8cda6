"""The adapter as one buffer: master weights in float32, a copy in the compute dtype, gradients.

PEFT's own parameters become views of the master buffer, so that what it saves and loads is what
is trained; clipping, casting and clearing take one kernel each, whatever the number of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nlijob.gpu.fast.layers import ADAPTER


class FlatAdapter:
    """All trained parameters of a model, LoRA's first: every A, every B, then the others."""

    def __init__(
        self, layers: Sequence[Any], others: Sequence[nn.Parameter], dtype: torch.dtype
    ) -> None:
        """`layers`: PEFT's LoRA layers, all scaled alike. `others`: a trained head's parameters."""
        firsts = [layer.lora_A[ADAPTER].weight for layer in layers]
        seconds = [layer.lora_B[ADAPTER].weight for layer in layers]
        self._scaling = float(layers[0].scaling[ADAPTER])
        self.parameters: list[nn.Parameter] = [*firsts, *seconds, *others]
        sizes = [parameter.numel() for parameter in self.parameters]
        self._firsts = sum(sizes[: len(firsts)])
        self._lora = self._firsts + sum(sizes[len(firsts) : 2 * len(firsts)])
        self._others = list(others)
        device = self.parameters[0].device
        self.master = torch.cat([p.detach().reshape(-1).float() for p in self.parameters])
        self.gradient = torch.zeros_like(self.master)
        self._computed = torch.empty(self._lora, dtype=dtype, device=device)
        self._new_gradient = torch.empty_like(self._computed)
        for parameter, part, gradient in zip(
            self.parameters,
            torch.split(self.master, sizes),
            torch.split(self.gradient, sizes),
            strict=True,
        ):
            parameter.data = part.view_as(parameter)
            parameter.grad = gradient.view_as(parameter)
        leaves = [
            part.view_as(parameter).detach().requires_grad_()
            for part, parameter in zip(
                torch.split(self._computed, sizes[: 2 * len(firsts)]), self.parameters, strict=False
            )
        ]
        self._leaves = leaves
        self.adapters = list(zip(layers, leaves, leaves[len(firsts) :], strict=False))
        """Each layer with its A [r, in] and scaled B [out, r] in the compute dtype."""
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring the copy in the compute dtype to what the master weights are now."""
        self._computed[: self._firsts].copy_(self.master[: self._firsts])
        torch.mul(
            self.master[self._firsts : self._lora],
            self._scaling,
            out=self._computed[self._firsts :],
        )

    def add_gradient(self, loss: Tensor) -> None:
        """Add the gradient of a loss to `gradient`."""
        gradients = torch.autograd.grad(loss, [*self._leaves, *self._others])
        lora = len(self._leaves)
        torch.cat([g.reshape(-1) for g in gradients[:lora]], out=self._new_gradient)
        firsts, end = self._firsts, self._lora
        self.gradient[:firsts].add_(self._new_gradient[:firsts])
        self.gradient[firsts:end].add_(self._new_gradient[firsts:], alpha=self._scaling)
        if self._others:
            self.gradient[end:].add_(torch.cat([g.reshape(-1) for g in gradients[lora:]]))

    @torch.no_grad()
    def clip(self, most: float) -> Tensor:
        """Scale the gradient down to a norm of `most`; returns its norm before that, a scalar."""
        norm: Tensor = torch.linalg.vector_norm(self.gradient)
        # the library's own clipping adds this, so both ways do the same
        self.gradient.mul_((most / (norm + 1e-6)).clamp(max=1.0))
        return norm
