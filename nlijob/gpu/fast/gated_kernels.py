"""The elementwise parts of a decoder layer with RMS norms, grouped queries and a gated MLP.

One CUDA kernel each on a GPU, torch's own operations elsewhere. As in `kernels`, tensors are
[tokens, width] unless stated otherwise, and widths and strides are multiples of `VECTOR`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nlijob.gpu.fast.cuda import Source
from nlijob.gpu.fast.kernels import by_eight, by_row, rotate

MAX_HEAD = 256
"""Largest width of a head: eight values for each thread of a warp."""
HEAD_THREADS = 512
SOURCE = Source("gated.cu")
NORMS_SOURCE = Source("norms.cu")
"""Norms that some families have besides."""
MLP_SOURCE = Source("gated_mlp.cu")
"""The activation of the MLP; the macro GELU says which."""


@dataclass(frozen=True)
class Heads:
    """The heads of attention, as they lie side by side: query, key and value."""

    queries: int
    """Number of query heads."""
    keys: int
    """Number of heads of keys, and of values; each serves several query heads."""
    width: int
    """Width of a head."""

    @property
    def group(self) -> int:
        """Query heads that share a head of keys and values."""
        return self.queries // self.keys

    @property
    def query_width(self) -> int:
        """Columns of all queries."""
        return self.queries * self.width

    @property
    def key_width(self) -> int:
        """Columns of all keys, and of all values."""
        return self.keys * self.width

    @property
    def columns(self) -> int:
        """Columns of queries, keys and values."""
        return self.query_width + 2 * self.key_width

    def split(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of y [tokens, columns], each [tokens, heads, width]; views."""
        first, second = self.query_width, self.query_width + self.key_width
        parts = (y[:, :first], y[:, first:second], y[:, second:])
        query, key, value = (part.view(len(y), -1, self.width) for part in parts)
        return query, key, value


@dataclass(frozen=True)
class HeadNorms:
    """Norms of query and key before the rotation: of each head, or of all heads together."""

    query: Tensor
    """[width of a head], or of all query heads"""
    key: Tensor
    epsilon: float


# ---------------------------------------------------------------- RMS norm


def residual_rms(
    x: Tensor,
    z: Tensor | None,
    bias: Tensor | None,
    weight: Tensor,
    epsilon: float,
    total: Tensor,
    normed: Tensor,
    scale: Tensor,
) -> None:
    """Add a residual and divide by the root mean square (Zhang and Sennrich, 2019).

    Writes `x + z + bias` to `total`, its norm times `weight` to `normed`, and 1 / its root mean
    square to `scale` [tokens], in float32. Without z, `total` is x itself and stays unchanged.
    """
    if x.is_cuda:
        stride = 0 if z is None else z.stride(0)
        given = (x, z, stride, bias, weight, epsilon, total, normed, scale, x.shape[1])
        SOURCE.launch("residual_rms", *by_row(x), *given)
        return
    if z is not None:
        total.copy_(x + z if bias is None else x + z + bias)
    wide = total.float()
    scale.copy_(torch.rsqrt(wide.square().mean(-1) + epsilon))
    normed.copy_(wide * scale[:, None] * weight)


def rms_backward(
    x: Tensor, scale: Tensor, weight: Tensor, d_normed: Tensor, residual: Tensor, out: Tensor
) -> None:
    """Write `residual` plus the gradient of x through `residual_rms`'s norm to `out`."""
    if x.is_cuda:
        strided = (d_normed, d_normed.stride(0), residual, residual.stride(0), out, out.stride(0))
        SOURCE.launch("rms_backward", *by_row(x), x, scale, weight, *strided, x.shape[1])
        return
    out.copy_(residual + _through_norm(x.float(), scale[:, None], d_normed.float() * weight))


def rms(
    y: Tensor, bias: Tensor | None, weight: Tensor, epsilon: float, out: Tensor, scale: Tensor
) -> None:
    """Write the RMS norm of `y + bias`, times `weight`, to `out`.

    y and `out` may be columns of wider matrices. `scale`: [tokens], float32, gets 1 / the root mean
    square.
    """
    if y.is_cuda:
        to = (out, out.stride(0), scale, y.shape[1])
        NORMS_SOURCE.launch("rms", *by_row(y), y, y.stride(0), bias, weight, epsilon, *to)
        return
    wide = y.float() if bias is None else y.float() + bias
    scale.copy_(torch.rsqrt(wide.square().mean(-1) + epsilon))
    out.copy_(wide * scale[:, None] * weight)


def rms_gradient(
    y: Tensor, bias: Tensor | None, scale: Tensor, weight: Tensor, d_out: Tensor
) -> None:
    """Replace y by its gradient through `rms`, whose output has the gradient `d_out`."""
    if y.is_cuda:
        given = (bias, scale, weight, d_out, d_out.stride(0), y.shape[1])
        NORMS_SOURCE.launch("rms_gradient", *by_row(y), y, y.stride(0), *given)
        return
    wide = y.float() if bias is None else y.float() + bias
    y.copy_(_through_norm(wide, scale[:, None], d_out.float() * weight))


def _through_norm(x: Tensor, scale: Tensor, grad: Tensor) -> Tensor:
    """Gradient of x from the gradient of `x * scale`."""
    normal = x * scale
    return scale * (grad - normal * (grad * normal).mean(-1, keepdim=True))


# ---------------------------------------------------------------- attention


def complete_heads(
    y: Tensor,
    bias: Tensor | None,
    norms: HeadNorms | None,
    cosine: Tensor,
    sine: Tensor,
    heads: Heads,
    out: Tensor,
) -> None:
    """Add the bias to query, key and value, normalise query and key by head, and rotate them.

    y, out: [tokens, heads.columns]; they may be the same. cosine, sine: [tokens, half], see
    `kernels.bias_rotate`.
    """
    if y.is_cuda:
        given = (*weights_of(bias, norms), cosine, sine, out, out.stride(0))
        _launch("complete_heads", y, heads, y, y.stride(0), *given, cosine.shape[1])
        return
    wide = y.to(torch.float32, copy=True)
    if bias is not None:
        wide += bias
    for part, weight in zip(heads.split(wide), _weights(norms), strict=True):
        if weight is not None and norms:
            part.mul_(torch.rsqrt(part.square().mean(-1, keepdim=True) + norms.epsilon) * weight)
    rotate(_rotated(wide, heads), cosine, sine)
    out.copy_(wide)


def head_gradients(
    d_query: Tensor,
    d_own: Tensor,
    d_prefix: Tensor | None,
    bounds: Tensor,
    bias: Tensor | None,
    norms: HeadNorms | None,
    cosine: Tensor,
    sine: Tensor,
    heads: Heads,
    y: Tensor,
) -> None:
    """Write the gradient of `complete_heads`'s input to y, which has that input if there are norms.

    d_query: [tokens, columns], gradient of the queries. d_own: [tokens, 2 * group * key width],
    float32, gradients of keys and of values for each of the `group` query heads that use them (or
    their sums, with a group of 1). d_prefix: [segments, prefix, ...], the same of the prefix's
    tokens, for each segment at `bounds` that has tokens; None without a prefix.
    """
    group = d_own.shape[1] // (2 * heads.key_width)
    if y.is_cuda:
        segments, prefix = (0, 0) if d_prefix is None else d_prefix.shape[:2]
        sums = (d_own, d_prefix, bounds, segments, prefix, group)
        given = (*sums, *weights_of(bias, norms), cosine, sine, y, y.stride(0))
        _launch("head_gradients", y, heads, d_query, d_query.stride(0), *given, cosine.shape[1])
        return
    if d_prefix is not None:
        is_used = (bounds.diff() > 0).view(-1, 1, 1)
        d_own = d_own.clone()
        d_own[: d_prefix.shape[1]] = torch.where(is_used, d_prefix, 0.0).sum(0)
    of_heads = d_own.view(len(y), 2, heads.keys, group, heads.width).sum(3).flatten(1)
    grad = torch.cat([d_query[:, : heads.query_width].float(), of_heads], 1)
    rotate(_rotated(grad, heads), cosine, -sine)
    raw = y.float() if bias is None else y.float() + bias
    parts = zip(heads.split(grad), heads.split(raw), _weights(norms), strict=True)
    for part, x, weight in parts:
        if weight is not None and norms:
            scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + norms.epsilon)
            part.copy_(_through_norm(x, scale, part * weight))
    y.copy_(grad)


def _rotated(y: Tensor, heads: Heads) -> Tensor:
    """The heads of query and key, [tokens, heads, width]; a view."""
    both = y[:, : heads.query_width + heads.key_width]
    return both.view(len(y), -1, heads.width)


def _weights(norms: HeadNorms | None) -> tuple[Tensor | None, Tensor | None, None]:
    return (norms.query, norms.key, None) if norms else (None, None, None)


def weights_of(
    bias: Tensor | None, norms: HeadNorms | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None, float]:
    """Bias, norms of query and key, and epsilon, as the kernels take them."""
    query, key, _ = _weights(norms)
    return bias, query, key, norms.epsilon if norms else 0.0


def _launch(name: str, y: Tensor, heads: Heads, *given: object) -> None:
    """Launch a block for each token, with a warp for each head; `given` ends with `half`."""
    *others, half = given
    sizes = (heads.queries, heads.keys, heads.width, half)
    warps = min(HEAD_THREADS // 32, heads.queries + 2 * heads.keys)
    SOURCE.launch(name, (len(y), 1), 32 * warps, *others, *sizes)


# ---------------------------------------------------------------- activation


def _launch_gate(name: str, y: Tensor, other: Tensor, **defined: int) -> None:
    """Launch an activation's kernel on the rows of y and of its output, or of that's gradient."""
    width = other.shape[1]
    given = (y, y.stride(0), other, other.stride(0), width, len(y))
    blocks, threads = by_eight(y, width)
    MLP_SOURCE.launch(name, blocks, threads, *given, **defined)


def swiglu(y: Tensor, out: Tensor) -> None:
    """Write silu(gate) * up to `out`; y has gate and up side by side (Shazeer, 2020)."""
    width = out.shape[1]
    if y.is_cuda:
        _launch_gate("gate", y, out, GELU=0)
        return
    out.copy_(functional.silu(y[:, :width]) * y[:, width:])


def swiglu_backward(y: Tensor, d_out: Tensor) -> None:
    """Replace y by the gradient of `swiglu`'s input; `d_out` is the gradient of its output."""
    width = d_out.shape[1]
    if y.is_cuda:
        _launch_gate("gate_backward", y, d_out, GELU=0)
        return
    gate, up = y[:, :width].float(), y[:, width:].float()
    grad, sigmoid = d_out.float(), gate.sigmoid()
    d_gate = grad * up * sigmoid * (1 + gate * (1 - sigmoid))
    y.copy_(torch.cat([d_gate, grad * gate * sigmoid], 1))


def geglu(y: Tensor, out: Tensor) -> None:
    """Write gelu(gate) * up to `out`, tanh approximation; y as in `swiglu`."""
    width = out.shape[1]
    if y.is_cuda:
        _launch_gate("gate", y, out, GELU=1)
        return
    out.copy_(functional.gelu(y[:, :width], approximate="tanh") * y[:, width:])


def geglu_backward(y: Tensor, d_out: Tensor) -> None:
    """Replace y by the gradient of `geglu`'s input; `d_out` is the gradient of its output."""
    width = d_out.shape[1]
    if y.is_cuda:
        _launch_gate("gate_backward", y, d_out, GELU=1)
        return
    gate, up = y[:, :width].float(), y[:, width:].float()
    grad = d_out.float()
    d_gate = torch.ops.aten.gelu_backward(grad * up, gate, approximate="tanh")
    y.copy_(torch.cat([d_gate, grad * functional.gelu(gate, approximate="tanh")], 1))


@dataclass(frozen=True)
class Activation:
    """The activation of a gated MLP."""

    forward: Callable[[Tensor, Tensor], None]
    """As `swiglu`."""
    backward: Callable[[Tensor, Tensor], None]
    """As `swiglu_backward`."""
    is_gelu: bool

    def compile(self, device: torch.device, dtype: torch.dtype) -> None:
        """Compile its kernels. Raises Unsupported."""
        MLP_SOURCE.compile(device, dtype, GELU=int(self.is_gelu))


SWIGLU = Activation(swiglu, swiglu_backward, is_gelu=False)
GEGLU = Activation(geglu, geglu_backward, is_gelu=True)
ACTIVATIONS = {"silu": SWIGLU, "swish": SWIGLU, "gelu_pytorch_tanh": GEGLU}
"""The activations by their names in the library."""
