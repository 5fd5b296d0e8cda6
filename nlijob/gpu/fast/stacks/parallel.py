"""Decoder layers with parallel attention and MLP, as a few large matrix products and kernels.

    y = norm(x) [A W_q W_k W_v W_1]'       A, B: LoRA on query, key and value (Hu et al., 2021)
    attended = attention(y's q, k, v + inner B')                            inner: y's part of A
    z = attended [W_o A_o]'                A_o, B_o: LoRA on the attention's output, if any
    x = x + z + [gelu(y's part of W_1), z's part of A_o] [W_2 B_o]'

The adapter's matrices lie beside the base weights, so that one product computes both. The As are
there a second time at the end, because their gradient follows the others in the backward pass.
Biases are added by the kernels. Values are in the compute dtype; sums along a row are in float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nlijob.gpu.fast import fused_attention as attention
from nlijob.gpu.fast import kernels
from nlijob.gpu.fast.dropout import mask
from nlijob.gpu.fast.fused_attention import PackLayout

TIMED_LAYERS = 4
"""Enough that their weights exceed a GPU's cache."""
TIMES = 3


@dataclass(frozen=True)
class LayerDims:
    """Dimensions of the layers, and the columns of the parts of `y`."""

    layers: int
    width: int
    wide: int
    """Width of the MLP's hidden layer."""
    rank: int
    out_rank: int
    """Rank on the attention's output: `rank`, or 0 without an adapter there."""

    @property
    def inner(self) -> slice:
        """Products of the input with the As."""
        return slice(3 * self.rank)

    @property
    def heads(self) -> slice:
        """Query, key and value, side by side."""
        return slice(self.inner.stop, self.inner.stop + 3 * self.width)

    @property
    def up(self) -> slice:
        """First product of the MLP."""
        return slice(self.heads.stop, self.heads.stop + self.wide)

    @property
    def d_inner(self) -> slice:
        """Gradient of `inner`, in the backward pass."""
        return slice(self.up.stop, self.y_width)

    @property
    def y_width(self) -> int:
        """Number of columns of `y`."""
        return 6 * self.rank + 3 * self.width + self.wide


class Weights:
    """Weights of all layers, dequantised; zero until they are filled."""

    def __init__(self, dims: LayerDims, device: torch.device, dtype: torch.dtype) -> None:
        """Raises torch.OutOfMemoryError."""
        s = self.dims = dims

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(s.layers, *shape, device=device, dtype=dtype)

        self.first = zeros(s.y_width, s.width)
        """[layers, y_width, width]: one row for each column of `y`."""
        self.out = zeros(s.width + s.out_rank, s.width)
        """[layers, width + out_rank, width]: W_o above A_o."""
        self.down = zeros(s.width, s.wide + s.out_rank)
        """[layers, width, wide + out_rank]: W_2 beside B_o."""
        self.heads_bias = zeros(3 * s.width)
        self.up_bias = zeros(s.wide)
        self.residual_bias = zeros(s.width)
        """[layers, width]: sum of the biases of W_o and W_2."""
        self.a = self.first[:, s.inner]
        """[layers, 3 rank, width]: a view of `first`."""
        self.b: Tensor
        """[layers, 3, width, rank]: a view of the adapter's own copy."""

    @torch.no_grad()
    def place(self, leaves: Sequence[Tensor]) -> None:
        """Copy an adapter beside the base weights; `leaves`: A, B [3 layers, ...], A_o, B_o."""
        s = self.dims
        self.a.copy_(leaves[0].view_as(self.a))
        self.first[:, s.d_inner].copy_(self.a)
        self.b = leaves[1].view(s.layers, 3, s.width, s.rank)
        if s.out_rank:
            self.out[:, s.width :].copy_(leaves[2])
            self.down[:, :, s.wide :].copy_(leaves[3])


class Workspace:
    """Buffers for the layers' values: one per layer if a backward pass follows, else only one."""

    def __init__(self, dims: LayerDims, x: Tensor, keep: bool, dropout: float) -> None:
        s, n, tokens = dims, dims.layers if keep else 1, len(x)
        self.keep, self.dropout, self.scale = keep, dropout, 1 / (1 - dropout)
        self.x = x.new_empty(n, tokens, s.width)
        self.normed = torch.empty_like(self.x)
        self.out = torch.empty_like(self.x)
        """Output of the attention block, [layers or 1, tokens, width]."""
        self.stats = x.new_empty(n, tokens, 2, dtype=torch.float32)
        self.y = x.new_empty(n, tokens, s.y_width)
        self.wide = x.new_empty(n, tokens, s.wide + s.out_rank)
        self.attended: list[attention.AttentionResult] = []
        """Result of attention for each layer, if a backward pass follows."""
        self.last: Last | None = None
        if dropout:
            inputs = 4 if s.out_rank else 3  # query, key, value and output have a mask each
            self.masks = mask(x, dropout, s.layers, inputs, dtype=torch.uint8)
            self.dropped = x.new_empty(n, inputs, tokens, s.width)


@dataclass(frozen=True)
class Last:
    """What the last layer computes after its attention, for the rows' last tokens only."""

    up: Tensor
    """[rows, wide]"""
    wide: Tensor
    """[rows, wide + out_rank]"""
    given: Tensor
    """[rows, width]: input of A_o."""


def forward(
    weights: Weights,
    norms: Sequence[nn.LayerNorm],
    x: Tensor,
    pack: PackLayout,
    ws: Workspace,
    adapted: bool,
) -> Tensor:
    """Hidden states [rows, width] after all layers at the tokens `pack.last`.

    x: [tokens, width], the embeddings. `adapted`: use the adapter.
    """
    s, w, tokens = weights.dims, weights, len(x)
    columns = s.width + (s.out_rank if adapted else 0)
    both = x.new_empty(tokens, columns)
    ws.x[0].copy_(x)
    for number in range(s.layers):
        at, before = (number, max(number - 1, 0)) if ws.keep else (0, 0)
        normed, y, first = ws.normed[at], ws.y[at], w.first[number]
        z = both[:, : s.width] if number else None
        norm, bias = norms[number], w.residual_bias[max(number - 1, 0)]
        to = (ws.x[at], normed, ws.stats[at])
        kernels.residual_norm(ws.x[before], z, bias, norm.weight, norm.bias, norm.eps, *to)
        is_last = number == s.layers - 1
        needed = slice(s.heads.stop if is_last else s.up.stop)
        torch.mm(normed, first[needed].t(), out=y[:, needed])
        if ws.dropout:
            _drop_input(w, number, normed, y, ws, at)
        b = w.b[number] if adapted else None
        bias, out = w.heads_bias[number], ws.out[at]
        attended = attention.forward(y[:, s.heads], y[:, s.inner], b, bias, pack, ws.keep, out)
        if ws.keep:
            ws.attended.append(attended)
        given = attended.out
        if ws.dropout and s.out_rank:
            kernels.drop(given, ws.masks[number, 3:], ws.scale, ws.dropped[at, 3:])
            given = ws.dropped[at, 3]
        if not is_last:
            wide = ws.wide[at, :, : s.wide + columns - s.width]
            _output(w, number, attended.out, given, y[:, s.up], wide, both)
    rows = pack.last
    up = normed[rows] @ first[s.up].t()
    wide, both = up.new_empty(len(rows), s.wide + columns - s.width), both[: len(rows)]
    at_rows = attended.out[rows]
    ws.last = Last(up, wide, at_rows if given is attended.out else given[rows])
    _output(w, number, at_rows, ws.last.given, up, wide, both)
    return ws.x[-1][rows] + both[:, : s.width] + w.residual_bias[-1]


def _drop_input(w: Weights, number: int, normed: Tensor, y: Tensor, ws: Workspace, at: int) -> None:
    """Recompute `inner` with dropout; query, key and value each have a mask of their own."""
    s = w.dims
    kernels.drop(normed, ws.masks[number, :3], ws.scale, ws.dropped[at, :3])
    inner = y[:, s.inner].view(len(y), 3, s.rank).transpose(0, 1)
    a = w.a[number].view(3, s.rank, s.width)
    torch.bmm(ws.dropped[at, :3], a.transpose(1, 2), out=inner)


def _output(
    w: Weights, number: int, attended: Tensor, given: Tensor, up: Tensor, wide: Tensor, both: Tensor
) -> None:
    """Write what the layer adds to its input to both [rows, width + rank of A_o].

    `given` is the input of A_o, whose rank is 0 without the adapter.
    """
    s, rank = w.dims, both.shape[1] - w.dims.width
    torch.mm(attended, w.out[number, : s.width + rank].t(), out=both)
    if rank and given is not attended:
        torch.mm(given, w.out[number, s.width :].t(), out=both[:, s.width :])
    kernels.bias_gelu(up, w.up_bias[number], both[:, s.width :], wide)
    both[:, : s.width].addmm_(wide, w.down[number, :, : s.wide + rank].t())


def backward(
    weights: Weights, norms: Sequence[nn.LayerNorm], grad: Tensor, pack: PackLayout, ws: Workspace
) -> list[Tensor]:
    """Gradients of the adapter's A, B, A_o and B_o; `grad` [rows, width] is that of the output.

    This overwrites what `forward` kept in `ws`.
    """
    s, w, tokens, last = weights.dims, weights, len(ws.x[0]), ws.last
    assert last
    residuals = grad.new_empty(
        s.layers - 1, tokens, s.width + s.out_rank
    )  # and the gradient of attended A_o'
    at_last = grad.new_empty(len(grad), s.width + s.out_rank)
    at_last[:, : s.width].copy_(grad)
    d_wide = grad.new_empty(tokens, s.wide + s.out_rank)

    def spread(of_rows: Tensor) -> Tensor:
        return of_rows.new_zeros(tokens, s.width).index_add_(0, pack.last, of_rows)

    for number in reversed(range(s.layers)):
        y, is_last = ws.y[number], number == s.layers - 1
        both, up = (at_last, last.up) if is_last else (residuals[number], y[:, s.up])
        g, d_inner_out = both[:, : s.width], both[:, s.width :]
        if number:
            torch.mm(g, w.down[number], out=d_wide[: len(g)])
            kernels.gelu_backward(up, w.up_bias[number], d_wide[: len(g)], d_inner_out)
        else:  # nothing before the first layer is trained
            torch.mm(g, w.down[number, :, s.wide :], out=d_inner_out)
        d_attended = _through_out(w.out[number], both, ws, number, pack.last if is_last else None)
        if is_last:
            g, d_attended = spread(g), spread(d_attended)
        of_heads, d_inner = y[:, s.heads], y[:, s.d_inner]
        attention.backward(ws.attended[number], d_attended, of_heads, pack)
        each = of_heads.view(tokens, 3, s.width).transpose(0, 1)
        torch.bmm(each, w.b[number], out=d_inner.view(tokens, 3, s.rank).transpose(0, 1))
        if number == 0:
            break
        d_normed = _through_first(w, y, ws, number, pack.last)
        x, stats, into = (
            ws.x[number],
            ws.stats[number],
            residuals[number - 1, :, : s.width],
        )
        kernels.norm_backward(x, stats, norms[number].weight, d_normed, g, into)
    return [*_head_gradients(s, ws), *_out_gradients(s, ws, residuals, at_last)]


def _through_first(w: Weights, y: Tensor, ws: Workspace, number: int, rows: Tensor) -> Tensor:
    """Gradient of the normalised input from those of y's parts, which are in y.

    The last layer has the MLP's part for `rows` only.
    """
    s, first = w.dims, w.first[number]
    is_last = number == s.layers - 1
    last_part = s.heads if is_last else s.up if ws.dropout else s.d_inner
    parts = slice(s.heads.start, last_part.stop)
    d_normed = y[:, parts] @ first[parts]
    if is_last:
        assert ws.last
        d_normed.index_add_(0, rows, ws.last.up @ first[s.up])
    if ws.dropout:
        each = y[:, s.d_inner].view(len(y), 3, s.rank).transpose(0, 1)
        through = torch.bmm(each, w.a[number].view(3, s.rank, s.width))
        kernels.add_kept(d_normed, through, ws.masks[number, :3], ws.scale)
    elif is_last:
        d_normed.addmm_(y[:, s.d_inner], w.a[number])
    return d_normed


def _through_out(
    out: Tensor, both: Tensor, ws: Workspace, number: int, rows: Tensor | None
) -> Tensor:
    """Gradient of the attention's output from `both`, the gradients of z and of attended A_o'.

    `rows`: the tokens in question, or None for all.
    """
    width = out.shape[1]
    if not ws.dropout or both.shape[1] == width:
        return both @ out
    mask = ws.masks[number, 3:] if rows is None else ws.masks[number, 3:, rows]
    grad = both[:, :width] @ out[:width]
    through = both[:, width:] @ out[width:]
    kernels.add_kept(grad, through.unsqueeze(0), mask, ws.scale)
    return grad


def _head_gradients(s: LayerDims, ws: Workspace) -> list[Tensor]:
    """Gradients of A and B of all layers at once: a layer's own would be small products."""
    y = ws.y
    d_a = y.new_empty(s.layers, 3, s.rank, s.width)
    d_b = y.new_empty(s.layers, 3, s.width, s.rank)
    of_heads, inner, d_inner = y[:, :, s.heads], y[:, :, s.inner], y[:, :, s.d_inner]
    for part in range(3):
        ranks = slice(part * s.rank, (part + 1) * s.rank)
        columns = slice(part * s.width, (part + 1) * s.width)
        given = ws.dropped[:, part] if ws.dropout else ws.normed
        torch.bmm(d_inner[:, :, ranks].transpose(1, 2), given, out=d_a[:, part])
        torch.bmm(of_heads[:, :, columns].transpose(1, 2), inner[:, :, ranks], out=d_b[:, part])
    return [d_a.flatten(0, 1), d_b.flatten(0, 1)]


def _out_gradients(s: LayerDims, ws: Workspace, residuals: Tensor, at_last: Tensor) -> list[Tensor]:
    """Gradients of A_o and B_o, or none without them."""
    if not s.out_rank:
        return []
    assert ws.last
    d_a = residuals.new_empty(s.layers, s.rank, s.width)
    d_b = residuals.new_empty(s.layers, s.width, s.rank)
    given = ws.dropped[:-1, 3] if ws.dropout else ws.out[:-1]
    d_z, d_inner = residuals[:, :, : s.width], residuals[:, :, s.width :]
    torch.bmm(d_inner.transpose(1, 2), given, out=d_a[:-1])
    torch.bmm(d_z.transpose(1, 2), ws.wide[:-1, :, s.wide :], out=d_b[:-1])
    torch.mm(at_last[:, s.width :].t(), ws.last.given, out=d_a[-1])
    torch.mm(at_last[:, : s.width].t(), ws.last.wide[:, s.wide :], out=d_b[-1])
    return [d_a, d_b]


def product_seconds(weights: Weights, tokens: int) -> float:
    """Seconds for the forward and backward products of some layers with a pack of this size."""
    s, w = weights.dims, weights
    x = torch.linspace(-1, 1, tokens * s.width, device=w.out.device).view(tokens, s.width)
    x = x.to(w.out.dtype)
    y, wide = x.new_empty(tokens, s.y_width), x.new_zeros(tokens, s.wide + s.out_rank)
    both, through = x.new_empty(tokens, s.width + s.out_rank), torch.empty_like(x)

    def work() -> None:
        for number in range(min(TIMED_LAYERS, s.layers)):
            first, out, down = w.first[number], w.out[number], w.down[number]
            torch.mm(x, first[: s.up.stop].t(), out=y[:, : s.up.stop])
            torch.mm(x, out.t(), out=both)
            both[:, : s.width].addmm_(wide, down.t())
            torch.mm(x, down, out=wide)
            torch.mm(both, out, out=through)
            torch.mm(y[:, s.heads.start : s.up.stop], first[s.heads.start : s.up.stop], out=through)

    work()
    moments = [torch.cuda.Event(enable_timing=True) for _ in range(TIMES + 1)]  # type: ignore[no-untyped-call]
    moments[0].record()
    for moment in moments[1:]:
        work()
        moment.record()
    moments[-1].synchronize()
    return float(min(a.elapsed_time(b) for a, b in itertools.pairwise(moments))) / 1000
