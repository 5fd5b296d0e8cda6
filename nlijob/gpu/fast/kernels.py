"""The elementwise parts of a decoder layer: one CUDA kernel each on a GPU, torch's own elsewhere.

Tensors are [tokens, width] unless stated otherwise. Their widths and the strides of their rows are
multiples of `VECTOR`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nlijob.gpu.fast.cuda import Source

VECTOR = 8
"""Values that a thread reads with one instruction."""
MAX_WIDTH = 8_192
"""Largest width of a layer norm: eight values for each of a block's 1,024 threads."""
THREADS = 256
ROWS = 4
SOURCE = Source("kernels.cu")


# ---------------------------------------------------------------- layer norm


def residual_norm(
    x: Tensor,
    z: Tensor | None,
    bias: Tensor,
    weight: Tensor,
    shift: Tensor,
    epsilon: float,
    total: Tensor,
    normed: Tensor,
    stats: Tensor,
) -> None:
    """Add a residual and normalise.

    Writes `x + z + bias` to `total`, its layer norm to `normed`, and its mean and 1 / standard
    deviation to `stats` [tokens, 2] in float32. Without z, `total` is x itself and stays unchanged.
    """
    if x.is_cuda:
        stride = 0 if z is None else z.stride(0)
        given = (x, z, stride, bias, weight, shift, epsilon, total, normed, stats, x.shape[1])
        SOURCE.launch("residual_norm", *by_row(x), *given)
        return
    if z is not None:
        total.copy_(x + z + bias)
    wide = total.float()
    variance, mean = torch.var_mean(wide, -1, correction=0)
    stats.copy_(torch.stack([mean, torch.rsqrt(variance + epsilon)], -1))
    normed.copy_(functional.layer_norm(total, total.shape[1:], weight, shift, epsilon))


def norm_backward(
    x: Tensor, stats: Tensor, weight: Tensor, d_normed: Tensor, residual: Tensor, out: Tensor
) -> None:
    """Write `residual` plus the gradient of x through `residual_norm`'s layer norm to `out`."""
    if x.is_cuda:
        strided = (d_normed, d_normed.stride(0), residual, residual.stride(0), out, out.stride(0))
        SOURCE.launch("norm_backward", *by_row(x), x, stats, weight, *strided, x.shape[1])
        return
    mean, scale = stats[:, :1], stats[:, 1:]
    grad, normal = d_normed.float() * weight, (x.float() - mean) * scale
    along = (grad * normal).mean(-1, keepdim=True)
    out.copy_(residual + scale * (grad - grad.mean(-1, keepdim=True) - normal * along))


# ---------------------------------------------------------------- attention


def bias_rotate(y: Tensor, bias: Tensor, cosine: Tensor, sine: Tensor, head: int) -> None:
    """Add the bias to query, key and value, and rotate query and key, in place.

    y: [tokens, 3 width], query, key and value side by side. Of each head's `head` values the first
    2 * half are rotated, in pairs (i, i + half). cosine, sine: [tokens, half]. Rotary embedding as
    in Su et al., 2021, RoFormer.
    """
    width, half = y.shape[1] // 3, cosine.shape[1]
    if y.is_cuda:
        parts = (y, y.stride(0), bias, cosine, sine)
        SOURCE.launch("bias_rotate", *by_row(y), *parts, width, head, half)
        return
    y.add_(bias)
    rotate(y[:, : 2 * width].view(len(y), -1, head), cosine, sine)


def rotate_back(
    grads: Sequence[Tensor], cosine: Tensor, sine: Tensor, out: Tensor, head: int
) -> None:
    """Write the gradient of `bias_rotate`'s input to out [tokens, 3 width].

    `grads`: gradients of its query, key and value, [tokens, heads, head] each.
    """
    width, half = out.shape[1] // 3, cosine.shape[1]
    query, key, value = (grad.contiguous() for grad in grads)
    if out.is_cuda:
        parts = (query, key, value, cosine, sine, out, out.stride(0))
        SOURCE.launch("rotate_back", *by_row(out), *parts, width, head, half)
        return
    out.copy_(torch.stack([query, key, value], 1).flatten(1))
    rotate(out[:, : 2 * width].view(len(out), -1, head), cosine, -sine)


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> None:
    """Rotate heads [tokens, heads, width] in place, by torch's operations; see `bias_rotate`."""
    half = cosine.shape[1]
    first, second = heads[..., :half].clone(), heads[..., half : 2 * half].clone()
    cosine, sine = cosine[:, None], sine[:, None]
    heads[..., :half] = first * cosine - second * sine
    heads[..., half : 2 * half] = second * cosine + first * sine


# ---------------------------------------------------------------- activation


def bias_gelu(u: Tensor, bias: Tensor, beside: Tensor, out: Tensor) -> None:
    """Write gelu(u + bias), tanh approximation, to out, and `beside` in the columns after it."""
    width, more = u.shape[1], beside.shape[1]
    if u.is_cuda:
        parts = (u, u.stride(0), bias, beside, beside.stride(0), more, out, out.stride(0))
        SOURCE.launch("bias_gelu", *by_eight(u, width + more), *parts, width, len(u))
        return
    out[:, :width] = functional.gelu(u + bias, approximate="tanh")
    out[:, width:] = beside


def gelu_backward(u: Tensor, bias: Tensor, d_out: Tensor, beside: Tensor) -> None:
    """Replace u and write `beside` by the gradients of `bias_gelu`'s inputs.

    `d_out` is the gradient of its output.
    """
    width, more = u.shape[1], beside.shape[1]
    if u.is_cuda:
        parts = (u, u.stride(0), bias, d_out, d_out.stride(0), beside, beside.stride(0))
        SOURCE.launch("gelu_backward", *by_eight(u, width + more), *parts, more, width, len(u))
        return
    grad = d_out[:, :width]
    u.copy_(torch.ops.aten.gelu_backward(grad, u + bias, approximate="tanh"))
    beside.copy_(d_out[:, width:])


# ---------------------------------------------------------------- dropout


def drop(x: Tensor, kept: Tensor, scale: float, out: Tensor) -> None:
    """Write x times each of n masks (bytes, 0 or 1), times `scale`, to out [n, tokens, width]."""
    if x.is_cuda:
        size = x.numel()
        blocks = (-(-size // (THREADS * VECTOR)), 1)
        parts = (x, kept, scale, out, size, len(kept))
        SOURCE.launch("drop", blocks, THREADS, *parts)
        return
    torch.mul(x * scale, kept, out=out)


def add_kept(into: Tensor, parts: Tensor, kept: Tensor, scale: float) -> None:
    """Add to `into` the sum of parts [n, tokens, width] times their masks, times `scale`."""
    if into.is_cuda:
        n, rows, width = parts.shape
        given = (into, into.stride(0), parts, kept, scale, n, rows, width)
        SOURCE.launch("add_kept", *by_row(into), *given)
        return
    into.add_((parts * kept).sum(0), alpha=scale)


def drop_rows(x: Tensor, kept: Tensor, scale: float, out: Tensor) -> None:
    """Write x, whose rows may lie apart, times a mask (bytes, 0 or 1), times `scale`, to out."""
    if x.is_cuda:
        given = (x, x.stride(0), kept, scale, out, x.shape[1])
        SOURCE.launch("drop_rows", *by_row(x), *given)
        return
    torch.mul(x * scale, kept, out=out)


# ---------------------------------------------------------------- launching


def by_row(x: Tensor) -> tuple[tuple[int, int], int]:
    """Blocks and threads where each row has a block."""
    eights = x.shape[1] // VECTOR
    return (len(x), 1), min(1024, -(-eights // 32) * 32)


def by_eight(x: Tensor, width: int) -> tuple[tuple[int, int], int]:
    """Blocks and threads where each thread has eight columns of ROWS rows."""
    return (-(-width // (THREADS * VECTOR)), -(-len(x) // ROWS)), THREADS
