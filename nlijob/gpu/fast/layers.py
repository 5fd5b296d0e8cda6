"""Linear layers that compute with the adapter in the compute dtype, in place of PEFT's own.

A layer stays where it is in the model, with its name, its parameters and its adapter switch: only
its class is another while the fast way is in use. So PEFT creates, saves, loads and switches
adapters as ever.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import bitsandbytes as bnb
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import NewGELUActivation

from nlijob.gpu.fast import dropout as masks
from nlijob.gpu.fast.errors import NotServed

ADAPTER = "default"


def dequantized(weight: Tensor, state: Any) -> Tensor:
    """[out, in]: the values of a 4-bit weight in the dtype it was quantised from.

    `state` is its bitsandbytes quantisation state; None for a weight that is none.
    """
    if state is None:
        return weight
    dense: Tensor = bnb.functional.dequantize_4bit(weight, state)
    return dense


class AdaptedLinear(torch.autograd.Function):
    """A frozen linear layer plus LoRA (Hu et al., 2021) in one step, forward and backward.

    `dropout(x) A' B' + x W' + bias` with x [tokens, in], W [out, in] (or 4-bit with its state),
    A [r, in] and B [out, r], B already scaled by alpha / r. Gradients go to x, A and B.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        a: Tensor,
        b: Tensor,
        weight: Tensor,
        state: Any,
        bias: Tensor | None,
        dropout: float,
    ) -> Tensor:
        """[tokens, out]"""
        dropped, kept = masks.dropped(x, dropout) if dropout else (x, None)
        inner = dropped @ a.t()
        out = functional.linear(x, dequantized(weight, state), bias)
        if torch.compiler.is_compiling():
            out = out + inner @ b.t()  # torch 2.11 loses the gradient of what is changed in place
        else:
            out.addmm_(inner, b.t())
        ctx.save_for_backward(dropped, kept, inner, a, b, weight)
        ctx.state, ctx.dropout = state, dropout
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, A and B."""
        dropped, kept, inner, a, b, weight = ctx.saved_tensors
        grad_inner = grad @ b
        grad_a, grad_b = grad_inner.t() @ dropped, grad.t() @ inner
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ dequantized(weight, ctx.state)
            if kept is None:
                grad_x.addmm_(grad_inner, a)
            else:
                scale = 1 / (1 - ctx.dropout)
                grad_x.add_(torch.ops.aten.native_dropout_backward(grad_inner @ a, kept, scale))
        return grad_x, grad_a, grad_b, None, None, None, None


class FastAdapted(nn.Module):
    """What PEFT's LoRA layer computes, by `AdaptedLinear`; see `serve` for its parts."""

    fast_weight: Tensor
    fast_state: Any
    fast_bias: Tensor | None
    fast_a: Tensor
    fast_b: Tensor
    fast_dropout: float
    disable_adapters: bool

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """[..., in] -> [..., out]"""
        if self.disable_adapters:
            return functional.linear(
                x, dequantized(self.fast_weight, self.fast_state), self.fast_bias
            )
        out: Tensor = AdaptedLinear.apply(
            x.reshape(-1, x.shape[-1]),
            self.fast_a,
            self.fast_b,
            self.fast_weight,
            self.fast_state,
            self.fast_bias,
            self.fast_dropout if self.training else 0.0,
        )  # type: ignore[no-untyped-call]
        return out.view(*x.shape[:-1], -1)


class FastDense(nn.Module):
    """A 4-bit layer with its weight dequantised once."""

    fast_weight: Tensor
    fast_bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        return functional.linear(x, self.fast_weight, self.fast_bias)


class FastGelu(nn.Module):
    """GELU by its tanh approximation in one kernel; transformers composes it of eight."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return functional.gelu(x, approximate="tanh")


class Installed:
    """The layers of a model that have another class for now."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, type, tuple[str, ...]]] = []

    def put(self, layer: Any, fast: type, **parts: Any) -> None:
        """Give a layer the fast class's way to compute, with the parts that this needs."""
        before = type(layer)
        self._before.append((layer, before, tuple(parts)))
        for name, part in parts.items():
            setattr(layer, name, part)
        layer.__class__ = _joined(fast, before)  # type: ignore[arg-type]

    def undo(self) -> None:
        """Give every layer its own class back."""
        for layer, before, parts in self._before:
            layer.__class__ = before
            for name in parts:
                delattr(layer, name)
        self._before.clear()


@functools.cache
def _joined(fast: type, before: type) -> type:
    """The fast class's forward, and everything else of a layer's own class."""
    return type(f"{fast.__name__}{before.__name__}", (fast, before), {})


def is_adapted(layer: Any) -> bool:
    """Whether PEFT's LoRA is on a layer."""
    return isinstance(layer, LoraLayer)


def adapted_layers(model: nn.Module) -> list[Any]:
    """The PEFT LoRA layers of a model, in its order.

    Raises NotServed where one is not plain LoRA over a linear layer.
    """
    layers: list[Any] = [module for module in model.modules() if is_adapted(module)]
    for layer in layers:
        plain = (
            isinstance(layer.get_base_layer(), nn.Linear)
            and layer.active_adapters == [ADAPTER]
            and not layer.merged
            and not layer.lora_variant
            and not layer.lora_bias.get(ADAPTER)
            and not getattr(layer, "fan_in_fan_out", False)
        )
        if not plain:
            raise NotServed(f"an adapter of another kind than LoRA on a linear layer: {layer}")
    if len({layer.scaling[ADAPTER] for layer in layers}) > 1:
        raise NotServed("adapters are scaled in more than one way")
    return layers


def serve(
    installed: Installed,
    model: nn.Module,
    adapters: Sequence[tuple[Any, Tensor, Tensor]],
    dense: bool,
    there: Mapping[int, Tensor],
) -> None:
    """Put the fast classes on a model's layers.

    `adapters` has each LoRA layer with its A and (scaled) B in the compute dtype. `dense`: keep
    every 4-bit weight dequantised, beside the 4-bit one; else that is done each time it is used.
    `there` has weights that are dequantised already, by their linear layer's id.
    """
    adapted = {id(layer.get_base_layer()) for layer, _, _ in adapters}
    for layer, a, b in adapters:
        weight, state, bias = _parts(layer.get_base_layer(), dense, a.dtype, there)
        installed.put(
            layer,
            FastAdapted,
            fast_weight=weight,
            fast_state=state,
            fast_bias=bias,
            fast_a=a,
            fast_b=b,
            fast_dropout=dropout_of(layer),
        )
    for module in list(model.modules()):
        if isinstance(module, NewGELUActivation):
            installed.put(module, FastGelu)
        elif dense and isinstance(module, bnb.nn.Linear4bit) and id(module) not in adapted:
            weight, _, bias = _parts(module, dense, module.compute_dtype, there)
            installed.put(module, FastDense, fast_weight=weight, fast_bias=bias)


def dense_bytes(model: nn.Module, dtype: torch.dtype) -> int:
    """Memory that the dequantised copies of a model's 4-bit weights take."""
    layers = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    return sum(layer.in_features * layer.out_features * dtype.itemsize for layer in layers)


def dropout_of(layer: Any) -> float:
    """The share of values that a LoRA layer drops."""
    return float(getattr(layer.lora_dropout[ADAPTER], "p", 0.0))


def base_weight(layer: nn.Linear, dtype: torch.dtype) -> Tensor:
    """[out, in]: the values of a linear layer's weight, quantised or not, in the compute dtype.

    Raises NotServed where a 4-bit weight was quantised from another.
    """
    return dequantized(layer.weight.detach(), _quant_state(layer, dtype)).to(dtype)


def _quant_state(layer: nn.Linear, dtype: torch.dtype) -> Any:
    """How a weight is quantised, or None; raises NotServed as `base_weight` does."""
    state = getattr(layer.weight, "quant_state", None)
    if state is not None and state.dtype != dtype:
        raise NotServed(f"weights quantised from {state.dtype}, computed in {dtype}")
    return state


def _parts(
    layer: nn.Linear, dense: bool, dtype: torch.dtype, there: Mapping[int, Tensor]
) -> tuple[Tensor, Any, Tensor | None]:
    """Weight, its quantisation state or None, and bias, in the compute dtype."""
    bias = None if layer.bias is None else layer.bias.detach().to(dtype)
    if id(layer) in there:
        return there[id(layer)], None, bias
    state = _quant_state(layer, dtype)
    if dense or state is None:
        return base_weight(layer, dtype).contiguous(), None, bias
    return layer.weight.data, state, bias
