"""Phi's attention with query, key and value as one product, rotated where they lie.

The library's own layer computes the same by some forty kernels more. It serves everything that
this does not: other architectures, adapters on some of the three, generation with its cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.phi.modeling_phi import PhiAttention

from nlijob.gpu.fast import dropout as masks
from nlijob.gpu.fast.attention import attend
from nlijob.gpu.fast.layers import Installed, is_adapted

Group = tuple[Sequence[Any], Tensor, Tensor]


class RotatedProjections(torch.autograd.Function):
    """Three adapted linear layers on one input, and the rotary embedding of two of them.

    x [tokens, in], As [3, r, in], scaled Bs [3, out, r], W [3 out, in], bias [3 out], cosine and
    sine [tokens, 1, 1, half] -> query, key and value, each [tokens, heads, width]. The first
    2 * half of the width are rotated (Su et al., 2021, RoFormer), as pairs half apart. Gradients
    go to x, As and Bs.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        a: Tensor,
        b: Tensor,
        weight: Tensor,
        bias: Tensor,
        cosine: Tensor,
        sine: Tensor,
        heads: int,
        dropout: float,
    ) -> tuple[Tensor, ...]:
        """Query, key, value: views of one buffer."""
        out = functional.linear(x, weight, bias)
        if dropout:
            # each layer drops values of its own, as three layers would; what is left is scaled up
            # where it is small, behind the product with A
            kept = masks.mask(x, dropout, 3)
            dropped = x * kept
            inner = torch.bmm(dropped, a.transpose(1, 2)).mul_(1 / (1 - dropout))
        else:
            dropped, kept = x, None
            inner = (x @ a.flatten(0, 1).t()).view(len(x), 3, -1).transpose(0, 1)
        out.view(len(x), 3, -1).transpose(0, 1).baddbmm_(inner, b.transpose(1, 2))
        parts = out.view(len(x), 3, heads, -1)
        _rotate(parts[:, :2], cosine, sine)
        ctx.save_for_backward(dropped, kept, inner, a, b, weight, cosine, sine)
        ctx.dropout = dropout
        return parts.unbind(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, As and Bs."""
        dropped, kept, inner, a, b, weight, cosine, sine = ctx.saved_tensors
        grad = torch.stack(grads, 1)
        _rotate(grad[:, :2], cosine, -sine)
        grad = grad.flatten(1)  # [tokens, 3 out]
        each = grad.view(len(grad), 3, -1).transpose(0, 1)  # [3, tokens, out]
        grad_inner = torch.bmm(each, b)  # [3, tokens, r]
        grad_b = torch.bmm(each.transpose(1, 2), inner)
        grad_x = grad @ weight if ctx.needs_input_grad[0] else None
        if kept is None:
            beside = grad_inner.transpose(0, 1).flatten(1)  # [tokens, 3 r]
            grad_a = (beside.t() @ dropped).view_as(a)
            if grad_x is not None:
                grad_x.addmm_(beside, a.flatten(0, 1))
        else:
            grad_inner.mul_(1 / (1 - ctx.dropout))
            grad_a = torch.bmm(grad_inner.transpose(1, 2), dropped)
            if grad_x is not None:
                for back, mask in zip(torch.bmm(grad_inner, a), kept, strict=True):
                    grad_x.addcmul_(back, mask)
        return grad_x, grad_a, grad_b, None, None, None, None, None, None


class FastPhiAttention(nn.Module):
    """Phi's attention on a pack; without a pack's bounds, the library's own."""

    fast_weight: Tensor
    fast_bias: Tensor
    fast_a: Tensor
    fast_b: Tensor
    fast_dropout: float

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        *arguments: Any,
        **options: Any,
    ) -> Any:
        """[1, tokens, width] -> the same and None, as the library's own."""
        layer: Any = self
        bounds = options.get("cu_seq_lens_q")
        if bounds is None or options.get("past_key_values") is not None:
            return super().forward(hidden_states, position_embeddings, *arguments, **options)
        x = hidden_states[0]
        half = layer.rotary_ndims // 2
        cosine, sine = (part[0, :, None, None, :half] for part in position_embeddings)
        heads = layer.config.num_attention_heads
        if layer.q_proj.disable_adapters:
            parts = functional.linear(x, self.fast_weight, self.fast_bias).view(
                len(x), 3, heads, -1
            )
            _rotate(parts[:, :2], cosine, sine)
            query, key, value = parts.unbind(1)
        else:
            query, key, value = RotatedProjections.apply(
                x,
                self.fast_a,
                self.fast_b,
                self.fast_weight,
                self.fast_bias,
                cosine,
                sine,
                heads,
                self.fast_dropout if self.training else 0.0,
            )  # type: ignore[no-untyped-call]
        out = attend(query, key, value, bounds, options["max_length_q"], layer.scaling)
        return layer.dense(out.flatten(1).unsqueeze(0)), None


def triples(model: nn.Module) -> list[tuple[Any, ...]]:
    """Query, key and value of each attention that can be computed as one product."""
    return [
        (layer.q_proj, layer.k_proj, layer.v_proj)
        for layer in _attentions(model)
        if not layer.qk_layernorm
        and layer.num_key_value_groups == 1
        and not layer.attention_dropout
        and all(map(is_adapted, (layer.q_proj, layer.k_proj, layer.v_proj)))
    ]


def serve(installed: Installed, model: nn.Module, groups: Sequence[Group]) -> None:
    """Put the fast class on each attention whose three layers are a group.

    The layers have their fast class and their dense weights by now; these become views of one.
    """
    of_layer = {id(group[0][0]): group for group in groups}
    for attention in _attentions(model):
        if id(attention.q_proj) in of_layer:
            layers, a, b = of_layer[id(attention.q_proj)]
            weight = torch.cat([layer.fast_weight for layer in layers])
            for layer, part in zip(layers, weight.chunk(3), strict=True):
                layer.fast_weight = part
            installed.put(
                attention,
                FastPhiAttention,
                fast_weight=weight,
                fast_bias=torch.cat([layer.fast_bias for layer in layers]),
                fast_a=a,
                fast_b=b,
                fast_dropout=layers[0].fast_dropout,
            )


def _attentions(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, PhiAttention)]


def _rotate(parts: Tensor, cosine: Tensor, sine: Tensor) -> None:
    """Rotate [tokens, n, heads, width] in place by angles of [tokens, 1, 1, half]."""
    half = cosine.shape[-1]
    first, second = parts[..., :half], parts[..., half : 2 * half]
    turned = first * sine
    first.mul_(cosine).addcmul_(second, sine, value=-1)
    second.mul_(cosine).add_(turned)
