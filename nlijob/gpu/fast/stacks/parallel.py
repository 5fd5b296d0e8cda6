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

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nlijob.gpu.fast import fused_attention as attention
from nlijob.gpu.fast import kernels
from nlijob.gpu.fast.dropout import mask
from nlijob.gpu.fast.fused_attention import PackLayout
from nlijob.gpu.fast.row_dropout import RowMasks
from nlijob.gpu.fast.stacks.function import TIMED_LAYERS, seconds


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
        self.dims = dims

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(dims.layers, *shape, device=device, dtype=dtype)

        self.first = zeros(dims.y_width, dims.width)
        """[layers, y_width, width]: one row for each column of `y`."""
        self.out = zeros(dims.width + dims.out_rank, dims.width)
        """[layers, width + out_rank, width]: W_o above A_o."""
        self.down = zeros(dims.width, dims.wide + dims.out_rank)
        """[layers, width, wide + out_rank]: W_2 beside B_o."""
        self.heads_bias = zeros(3 * dims.width)
        self.up_bias = zeros(dims.wide)
        self.residual_bias = zeros(dims.width)
        """[layers, width]: sum of the biases of W_o and W_2."""
        self.a = self.first[:, dims.inner]
        """[layers, 3 rank, width]: a view of `first`."""
        self.b: Tensor
        """[layers, 3, width, rank]: a view of the adapter's own copy."""

    @torch.no_grad()
    def place(self, leaves: Sequence[Tensor]) -> None:
        """Copy an adapter beside the base weights; `leaves`: A, B [3 layers, ...], A_o, B_o."""
        dims = self.dims
        self.a.copy_(leaves[0].view_as(self.a))
        self.first[:, dims.d_inner].copy_(self.a)
        self.b = leaves[1].view(dims.layers, 3, dims.width, dims.rank)
        if dims.out_rank:
            self.out[:, dims.width :].copy_(leaves[2])
            self.down[:, :, dims.wide :].copy_(leaves[3])


class Workspace:
    """Buffers for the layers' values: one per layer if a backward pass follows, else only one."""

    def __init__(
        self,
        dims: LayerDims,
        x: Tensor,
        keep: bool,
        dropout: float,
        row_masks: RowMasks | None = None,
    ) -> None:
        """`row_masks`: where dropout goes by row; its first calls are those of the layers here."""
        kept, tokens = dims.layers if keep else 1, len(x)
        self.keep, self.dropout, self.scale = keep, dropout, 1 / (1 - dropout)
        self.x = x.new_empty(kept, tokens, dims.width)
        self.normed = torch.empty_like(self.x)
        self.out = torch.empty_like(self.x)
        """Output of the attention block, [layers or 1, tokens, width]."""
        self.stats = x.new_empty(kept, tokens, 2, dtype=torch.float32)
        self.y = x.new_empty(kept, tokens, dims.y_width)
        self.wide = x.new_empty(kept, tokens, dims.wide + dims.out_rank)
        self.attended: list[attention.AttentionResult] = []
        """Result of attention for each layer, if a backward pass follows."""
        self.last: Last | None = None
        if dropout:
            inputs = 4 if dims.out_rank else 3  # query, key, value and output have a mask each
            self.masks = (
                row_masks.masks(x, dims.layers * inputs, dropout).view(-1, inputs, *x.shape)
                if row_masks
                else mask(x, dropout, dims.layers, inputs, dtype=torch.uint8)
            )
            self.dropped = x.new_empty(kept, inputs, tokens, dims.width)


@dataclass(frozen=True)
class Last:
    """Values of the last layer after its attention, for the rows' last tokens only."""

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
    dims, tokens = weights.dims, len(x)
    columns = dims.width + (dims.out_rank if adapted else 0)
    both = x.new_empty(tokens, columns)
    ws.x[0].copy_(x)
    for number in range(dims.layers):
        at, before = (number, max(number - 1, 0)) if ws.keep else (0, 0)
        normed, y, first = ws.normed[at], ws.y[at], weights.first[number]
        z = both[:, : dims.width] if number else None
        norm, bias = norms[number], weights.residual_bias[max(number - 1, 0)]
        to = (ws.x[at], normed, ws.stats[at])
        kernels.residual_norm(ws.x[before], z, bias, norm.weight, norm.bias, norm.eps, *to)
        is_last = number == dims.layers - 1
        needed = slice(dims.heads.stop if is_last else dims.up.stop)
        torch.mm(normed, first[needed].t(), out=y[:, needed])
        if ws.dropout:
            _drop_input(weights, number, normed, y, ws, at)
        b = weights.b[number] if adapted else None
        heads, inner = y[:, dims.heads], y[:, dims.inner]
        bias, out = weights.heads_bias[number], ws.out[at]
        attended = attention.forward(heads, inner, b, bias, pack, ws.keep, out)
        if ws.keep:
            ws.attended.append(attended)
        given = attended.out
        if ws.dropout and dims.out_rank:
            kernels.drop(given, ws.masks[number, 3:], ws.scale, ws.dropped[at, 3:])
            given = ws.dropped[at, 3]
        if not is_last:
            wide = ws.wide[at, :, : dims.wide + columns - dims.width]
            _output(weights, number, attended.out, given, y[:, dims.up], wide, both)
    rows = pack.last
    up = normed[rows] @ first[dims.up].t()
    wide, both = up.new_empty(len(rows), dims.wide + columns - dims.width), both[: len(rows)]
    at_rows = attended.out[rows]
    ws.last = Last(up, wide, at_rows if given is attended.out else given[rows])
    _output(weights, number, at_rows, ws.last.given, up, wide, both)
    return ws.x[-1][rows] + both[:, : dims.width] + weights.residual_bias[-1]


def _drop_input(
    weights: Weights, number: int, normed: Tensor, y: Tensor, ws: Workspace, at: int
) -> None:
    """Recompute `inner` with dropout; query, key and value each have a mask of their own."""
    dims = weights.dims
    kernels.drop(normed, ws.masks[number, :3], ws.scale, ws.dropped[at, :3])
    inner = y[:, dims.inner].view(len(y), 3, dims.rank).transpose(0, 1)
    a = weights.a[number].view(3, dims.rank, dims.width)
    torch.bmm(ws.dropped[at, :3], a.transpose(1, 2), out=inner)


def _output(
    weights: Weights,
    number: int,
    attended: Tensor,
    given: Tensor,
    up: Tensor,
    wide: Tensor,
    both: Tensor,
) -> None:
    """Write what the layer adds to its input to both [rows, width + rank of A_o].

    `given` is the input of A_o, whose rank is 0 without the adapter.
    """
    dims, rank = weights.dims, both.shape[1] - weights.dims.width
    torch.mm(attended, weights.out[number, : dims.width + rank].t(), out=both)
    if rank and given is not attended:
        torch.mm(given, weights.out[number, dims.width :].t(), out=both[:, dims.width :])
    kernels.bias_gelu(up, weights.up_bias[number], both[:, dims.width :], wide)
    both[:, : dims.width].addmm_(wide, weights.down[number, :, : dims.wide + rank].t())


def backward(
    weights: Weights, norms: Sequence[nn.LayerNorm], grad: Tensor, pack: PackLayout, ws: Workspace
) -> list[Tensor]:
    """Gradients of the adapter's A, B, A_o and B_o from the output's gradient [rows, width].

    This overwrites what `forward` kept in `ws`.
    """
    dims, tokens, last = weights.dims, len(ws.x[0]), ws.last
    assert last
    # the gradients of z, beside the gradients of attended A_o'
    residuals = grad.new_empty(dims.layers - 1, tokens, dims.width + dims.out_rank)
    at_last = grad.new_empty(len(grad), dims.width + dims.out_rank)
    at_last[:, : dims.width].copy_(grad)
    d_wide = grad.new_empty(tokens, dims.wide + dims.out_rank)

    def spread(of_rows: Tensor) -> Tensor:
        return of_rows.new_zeros(tokens, dims.width).index_add_(0, pack.last, of_rows)

    for number in reversed(range(dims.layers)):
        y, is_last = ws.y[number], number == dims.layers - 1
        both, up = (at_last, last.up) if is_last else (residuals[number], y[:, dims.up])
        d_z, d_inner_out = both[:, : dims.width], both[:, dims.width :]
        if number:
            torch.mm(d_z, weights.down[number], out=d_wide[: len(d_z)])
            kernels.gelu_backward(up, weights.up_bias[number], d_wide[: len(d_z)], d_inner_out)
        else:  # nothing before the first layer is trained
            torch.mm(d_z, weights.down[number, :, dims.wide :], out=d_inner_out)
        rows = pack.last if is_last else None
        d_attended = _through_out(weights.out[number], both, ws, number, rows)
        if is_last:
            d_z, d_attended = spread(d_z), spread(d_attended)
        of_heads, d_inner = y[:, dims.heads], y[:, dims.d_inner]
        attention.backward(ws.attended[number], d_attended, of_heads, pack)
        each = of_heads.view(tokens, 3, dims.width).transpose(0, 1)
        torch.bmm(each, weights.b[number], out=d_inner.view(tokens, 3, dims.rank).transpose(0, 1))
        if number == 0:
            break
        d_normed = _through_first(weights, y, ws, number, pack.last)
        x, stats, into = ws.x[number], ws.stats[number], residuals[number - 1, :, : dims.width]
        kernels.norm_backward(x, stats, norms[number].weight, d_normed, d_z, into)
    return [*_head_gradients(dims, ws), *_out_gradients(dims, ws, residuals, at_last)]


def _through_first(weights: Weights, y: Tensor, ws: Workspace, number: int, rows: Tensor) -> Tensor:
    """Gradient of the normalised input from the gradients of y's parts, which are in y.

    The last layer has the MLP's part for `rows` only.
    """
    dims, first = weights.dims, weights.first[number]
    is_last = number == dims.layers - 1
    last_part = dims.heads if is_last else dims.up if ws.dropout else dims.d_inner
    parts = slice(dims.heads.start, last_part.stop)
    d_normed = y[:, parts] @ first[parts]
    if is_last:
        assert ws.last
        d_normed.index_add_(0, rows, ws.last.up @ first[dims.up])
    if ws.dropout:
        each = y[:, dims.d_inner].view(len(y), 3, dims.rank).transpose(0, 1)
        through = torch.bmm(each, weights.a[number].view(3, dims.rank, dims.width))
        kernels.add_kept(d_normed, through, ws.masks[number, :3], ws.scale)
    elif is_last:
        d_normed.addmm_(y[:, dims.d_inner], weights.a[number])
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


def _head_gradients(dims: LayerDims, ws: Workspace) -> list[Tensor]:
    """Gradients of A and B of all layers at once: layer by layer, the products would be small."""
    y = ws.y
    d_a = y.new_empty(dims.layers, 3, dims.rank, dims.width)
    d_b = y.new_empty(dims.layers, 3, dims.width, dims.rank)
    of_heads, inner, d_inner = y[:, :, dims.heads], y[:, :, dims.inner], y[:, :, dims.d_inner]
    for part in range(3):
        ranks = slice(part * dims.rank, (part + 1) * dims.rank)
        columns = slice(part * dims.width, (part + 1) * dims.width)
        given = ws.dropped[:, part] if ws.dropout else ws.normed
        torch.bmm(d_inner[:, :, ranks].transpose(1, 2), given, out=d_a[:, part])
        torch.bmm(of_heads[:, :, columns].transpose(1, 2), inner[:, :, ranks], out=d_b[:, part])
    return [d_a.flatten(0, 1), d_b.flatten(0, 1)]


def _out_gradients(
    dims: LayerDims, ws: Workspace, residuals: Tensor, at_last: Tensor
) -> list[Tensor]:
    """Gradients of A_o and B_o, or none without them."""
    if not dims.out_rank:
        return []
    assert ws.last
    d_a = residuals.new_empty(dims.layers, dims.rank, dims.width)
    d_b = residuals.new_empty(dims.layers, dims.width, dims.rank)
    given = ws.dropped[:-1, 3] if ws.dropout else ws.out[:-1]
    d_z, d_inner = residuals[:, :, : dims.width], residuals[:, :, dims.width :]
    torch.bmm(d_inner.transpose(1, 2), given, out=d_a[:-1])
    torch.bmm(d_z.transpose(1, 2), ws.wide[:-1, :, dims.wide :], out=d_b[:-1])
    torch.mm(at_last[:, dims.width :].t(), ws.last.given, out=d_a[-1])
    torch.mm(at_last[:, : dims.width].t(), ws.last.wide[:, dims.wide :], out=d_b[-1])
    return [d_a, d_b]


def product_seconds(weights: Weights, tokens: int) -> float:
    """Seconds for the forward and backward products of some layers with a pack of this size."""
    dims = weights.dims
    values = torch.linspace(-1, 1, tokens * dims.width, device=weights.out.device)
    x = values.view(tokens, dims.width).to(weights.out.dtype)
    y, wide = x.new_empty(tokens, dims.y_width), x.new_zeros(tokens, dims.wide + dims.out_rank)
    both, through = x.new_empty(tokens, dims.width + dims.out_rank), torch.empty_like(x)

    middle = slice(dims.heads.start, dims.up.stop)

    def work() -> None:
        for number in range(min(TIMED_LAYERS, dims.layers)):
            first, out, down = weights.first[number], weights.out[number], weights.down[number]
            torch.mm(x, first[: dims.up.stop].t(), out=y[:, : dims.up.stop])
            torch.mm(x, out.t(), out=both)
            both[:, : dims.width].addmm_(wide, down.t())
            torch.mm(x, down, out=wide)
            torch.mm(both, out, out=through)
            torch.mm(y[:, middle], first[middle], out=through)

    return seconds(work)
