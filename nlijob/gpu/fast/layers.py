"""Linear layers with LoRA in the compute dtype, in place of PEFT's own.

A layer stays where it is in the model, with its name, parameters and adapter switch; only its class
is replaced temporarily. PEFT therefore creates, saves, loads and switches adapters as usual.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import bitsandbytes as bnb
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import NewGELUActivation

from nlijob.gpu.fast import dropout as masks
from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.row_dropout import RowMasks

ADAPTER = "default"


def dequantized(weight: Tensor, state: Any) -> Tensor:
    """Values [out, in] of a 4-bit weight, in the dtype that it was quantised from.

    `state` is its bitsandbytes quantisation state, or None for a weight that is not quantised.
    """
    if state is None:
        return weight
    dense: Tensor = bnb.functional.dequantize_4bit(weight, state)
    return dense


class AdaptedLinear(torch.autograd.Function):
    """A frozen linear layer plus LoRA (Hu et al., 2021) as one operation of autograd.

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
        kept: Tensor | None,
    ) -> Tensor:
        """Output of the layer, [tokens, out].

        `kept`: whether dropout keeps each value of x, bool; None draws that here.
        """
        dropped = x
        if kept is not None:
            dropped = torch.ops.aten.native_dropout_backward(x, kept, 1 / (1 - dropout))
        elif dropout:
            dropped, kept = masks.dropped(x, dropout)
        inner = dropped @ a.t()
        out = functional.linear(x, dequantized(weight, state), bias)
        if torch.compiler.is_compiling():
            out = out + inner @ b.t()  # torch 2.11 loses gradients of in-place changes
        else:
            out.addmm_(inner, b.t())
        ctx.save_for_backward(dropped, kept, inner, a, b, weight)
        ctx.state, ctx.dropout = state, dropout
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, A and B; None for everything else."""
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
        return grad_x, grad_a, grad_b, None, None, None, None, None


class LoRALinear(nn.Module):
    """PEFT's LoRA layer, computed by `AdaptedLinear`."""

    fast_weight: Tensor
    fast_state: Any
    fast_bias: Tensor | None
    fast_a: Tensor
    fast_b: Tensor
    fast_dropout: float
    fast_masks: RowMasks | None
    fast_call: Tensor
    disable_adapters: bool

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """Output of the layer: [..., in] -> [..., out]."""
        if self.disable_adapters:
            return functional.linear(
                x, dequantized(self.fast_weight, self.fast_state), self.fast_bias
            )
        values = x.reshape(-1, x.shape[-1])
        dropout = self.fast_dropout if self.training else 0.0
        out: Tensor = AdaptedLinear.apply(
            values,
            self.fast_a,
            self.fast_b,
            self.fast_weight,
            self.fast_state,
            self.fast_bias,
            dropout,
            self._kept(values, dropout),
        )  # type: ignore[no-untyped-call]
        return out.view(*x.shape[:-1], -1)

    def _kept(self, values: Tensor, dropout: float) -> Tensor | None:
        if not dropout or self.fast_masks is None:
            return None
        return self.fast_masks.kept(values, self.fast_call, dropout)


class FastDense(nn.Module):
    """A 4-bit linear layer with its weight dequantised once."""

    fast_weight: Tensor
    fast_bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """Output of the layer: [..., in] -> [..., out]."""
        return functional.linear(x, self.fast_weight, self.fast_bias)


class FastGelu(nn.Module):
    """GELU, tanh approximation, in one kernel; transformers uses eight."""

    def forward(self, x: Tensor) -> Tensor:
        """GELU of each value."""
        return functional.gelu(x, approximate="tanh")


class LayerPatches:
    """Replaces the classes of a model's layers temporarily."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, type, tuple[str, ...]]] = []

    def apply(self, layer: Any, fast: type, **parts: Any) -> None:
        """Give a layer the forward of the class `fast`, and the attributes that it needs."""
        before = type(layer)
        self._before.append((layer, before, tuple(parts)))
        for name, part in parts.items():
            setattr(layer, name, part)
        layer.__class__ = _joined(fast, before)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Restore the class of every layer for a while."""
        fast = [type(layer) for layer, _, _ in self._before]
        for layer, before, _ in self._before:
            layer.__class__ = before
        try:
            yield
        finally:
            for (layer, _, _), own in zip(self._before, fast, strict=True):
                layer.__class__ = own

    def undo(self) -> None:
        """Restore the class of every layer."""
        for layer, before, parts in self._before:
            layer.__class__ = before
            for name in parts:
                delattr(layer, name)
        self._before.clear()


@functools.cache
def _joined(fast: type, before: type) -> type:
    """A class with the forward of `fast` and everything else of the layer's own class."""
    return type(f"{fast.__name__}{before.__name__}", (fast, before), {})


def is_adapted(layer: Any) -> bool:
    """Whether a layer has a LoRA adapter."""
    return isinstance(layer, LoraLayer)


def adapted_layers(model: nn.Module) -> list[Any]:
    """The PEFT LoRA layers of a model, in order.

    Raises Unsupported where one is not plain LoRA on a linear layer.
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
            raise Unsupported(f"an adapter that is not plain LoRA on a linear layer: {layer}")
    if len({layer.scaling[ADAPTER] for layer in layers}) > 1:
        raise Unsupported("adapters have different scalings")
    return layers


def install_fast_layers(
    patches: LayerPatches,
    model: nn.Module,
    adapters: Sequence[tuple[Any, Tensor, Tensor]],
    dense: bool,
    existing: Mapping[int, Tensor],
    row_masks: RowMasks | None = None,
) -> None:
    """Give a model's layers the fast classes of this module.

    `adapters`: each LoRA layer with its A and scaled B in the compute dtype. `dense`: keep every
    4-bit weight dequantised as well; otherwise it is dequantised at each use. `existing`: weights
    that are dequantised already, by the id of their linear layer. `row_masks`: where dropout goes
    by row; its calls are numbered as `adapters`.
    """
    adapted = {id(layer.get_base_layer()) for layer, _, _ in adapters}
    for number, (layer, a, b) in enumerate(adapters):
        weight, state, bias = _parts(layer.get_base_layer(), dense, a.dtype, existing)
        patches.apply(
            layer,
            LoRALinear,
            fast_weight=weight,
            fast_state=state,
            fast_bias=bias,
            fast_a=a,
            fast_b=b,
            fast_dropout=dropout_of(layer),
            fast_masks=row_masks,
            # as a plain number, it would be compiled for each layer separately
            fast_call=torch.tensor(number, dtype=torch.int32, device=a.device),
        )
    for module in list(model.modules()):
        if isinstance(module, NewGELUActivation):
            patches.apply(module, FastGelu)
        elif dense and isinstance(module, bnb.nn.Linear4bit) and id(module) not in adapted:
            weight, _, bias = _parts(module, dense, module.compute_dtype, existing)
            patches.apply(module, FastDense, fast_weight=weight, fast_bias=bias)


def dequantized_bytes(model: nn.Module, dtype: torch.dtype) -> int:
    """Memory needed for dequantised copies of all 4-bit weights of a model."""
    layers = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    return sum(layer.in_features * layer.out_features * dtype.itemsize for layer in layers)


def dropout_of(layer: Any) -> float:
    """Dropout probability of a LoRA layer."""
    return float(getattr(layer.lora_dropout[ADAPTER], "p", 0.0))


def base_weight(layer: nn.Linear, dtype: torch.dtype) -> Tensor:
    """Weight [out, in] of a linear layer, quantised or not, in the compute dtype.

    Raises Unsupported where a 4-bit weight was quantised from another dtype.
    """
    return dequantized(layer.weight.detach(), _quant_state(layer, dtype)).to(dtype)


def _quant_state(layer: nn.Linear, dtype: torch.dtype) -> Any:
    """Quantisation state of a weight, or None; raises Unsupported like `base_weight`."""
    state = getattr(layer.weight, "quant_state", None)
    if state is not None and state.dtype != dtype:
        raise Unsupported(
            f"weights were quantised from {state.dtype}, and the compute dtype is {dtype}"
        )
    return state


def _parts(
    layer: nn.Linear, dense: bool, dtype: torch.dtype, existing: Mapping[int, Tensor]
) -> tuple[Tensor, Any, Tensor | None]:
    """Weight, its quantisation state or None, and bias or None; all in the compute dtype."""
    bias = None if layer.bias is None else layer.bias.detach().to(dtype)
    if id(layer) in existing:
        return existing[id(layer)], None, bias
    state = _quant_state(layer, dtype)
    if dense or state is None:
        return base_weight(layer, dtype).contiguous(), None, bias
    return layer.weight.data, state, bias
