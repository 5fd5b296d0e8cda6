"""Decoder layers with attention and MLP side by side, as few large products and a kernel for all
that lies between two of them.

    y = norm(x) [W_q W_k W_v A W_1]'       A, B: LoRA on query, key and value (Hu et al., 2021)
    attended = attention(y's q, k, v + inner B')                            inner: y's part of A
    z = attended [W_o A_o]'                A_o, B_o: LoRA on the attention's output, where it is
    x = x + z + [gelu(y's part of W_1), z's part of A_o] [W_2 B_o]'

The adapter's matrices lie beside the base's, so that one product gives both; backward, Bs lie
beside their rows in the same way. Biases are added on the way. Everything is in the compute dtype;
sums along a row are in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nlijob.gpu.fast import heads, kernels
from nlijob.gpu.fast.dropout import mask
from nlijob.gpu.fast.heads import Pack


@dataclass(frozen=True)
class Sizes:
    """Of every layer, and where the parts of `y` lie in its columns."""

    layers: int
    width: int
    wide: int
    """Of the MLP's inside."""
    rank: int
    out_rank: int
    """`rank`, or 0 where the attention's output has no adapter."""

    @property
    def heads(self) -> slice:
        """Query, key and value."""
        return slice(3 * self.width)

    @property
    def inner(self) -> slice:
        """What As make of the input."""
        return slice(3 * self.width, 3 * (self.width + self.rank))

    @property
    def up(self) -> slice:
        """The MLP's first product."""
        return slice(3 * (self.width + self.rank), self.of_y)

    @property
    def of_y(self) -> int:
        """All of them."""
        return 3 * (self.width + self.rank) + self.wide


class Weights:
    """Those of all layers, side by side. Zero until they are filled."""

    def __init__(self, sizes: Sizes, device: torch.device, dtype: torch.dtype) -> None:
        """Raises torch.OutOfMemoryError."""
        s = self.sizes = sizes

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(s.layers, *shape, device=device, dtype=dtype)

        self.first = zeros(s.of_y, s.width + 3 * s.rank)
        """Rows as the columns of `y`; columns: the input's, then B's, each beside its own rows."""
        self.out = zeros(s.width + s.out_rank, s.width)
        """Rows: W_o, A_o."""
        self.down = zeros(s.width, s.wide + s.out_rank)
        """Columns: W_2, B_o."""
        self.heads_bias = zeros(3 * s.width)
        self.up_bias = zeros(s.wide)
        self.residual_bias = zeros(s.width)
        """That of W_o and of W_2."""
        row = self.first.stride(1)
        self.a = self.first[:, s.inner, : s.width]
        """[layers, 3 rank, width], within `first`."""
        self.b = self.first.as_strided(
            (s.layers, 3, s.width, s.rank),
            (self.first.stride(0), s.width * row + s.rank, row, 1),
            s.width,
        )
        """[layers, 3, width, rank], within `first`."""

    @torch.no_grad()
    def place(self, leaves: Sequence[Tensor]) -> None:
        """Lay an adapter beside the base weights: A, B [3 layers, ...], then A_o, B_o."""
        s = self.sizes
        self.a.copy_(leaves[0].view_as(self.a))
        self.b.copy_(leaves[1].view_as(self.b))
        if s.out_rank:
            self.out[:, s.width :].copy_(leaves[2])
            self.down[:, :, s.wide :].copy_(leaves[3])


class Room:
    """Where the layers' values go: each layer's own where they are needed again, else one place."""

    def __init__(self, sizes: Sizes, x: Tensor, keep: bool, dropout: float) -> None:
        s, n, tokens = sizes, sizes.layers if keep else 1, len(x)
        self.keep, self.dropout, self.scale = keep, dropout, 1 / (1 - dropout)
        self.x = x.new_empty(n, tokens, s.width)
        self.normed = torch.empty_like(self.x)
        self.out = torch.empty_like(self.x)
        """Of attention."""
        self.stats = x.new_empty(n, tokens, 2, dtype=torch.float32)
        self.y = x.new_empty(n, tokens, s.of_y)
        self.wide = x.new_empty(n, tokens, s.wide + s.out_rank)
        self.attended: list[heads.Attended] = []
        """Of each layer, where it is needed again."""
        self.last: Last | None = None
        if dropout:
            inputs = 4 if s.out_rank else 3  # of query, key, value and output, each its own mask
            self.masks = mask(x, dropout, s.layers, inputs, dtype=torch.uint8)
            self.dropped = x.new_empty(n, inputs, tokens, s.width)


@dataclass(frozen=True)
class Last:
    """What the last layer computes of the rows' last tokens alone, behind its attention."""

    up: Tensor
    """[rows, wide]"""
    wide: Tensor
    """[rows, wide + out_rank]"""
    given: Tensor
    """[rows, width]: what A_o was given."""


def forward(
    weights: Weights,
    norms: Sequence[nn.LayerNorm],
    x: Tensor,
    pack: Pack,
    room: Room,
    adapted: bool,
) -> Tensor:
    """[tokens, width] through all layers, at pack.last -> [rows, width].

    `adapted`: with the adapter.
    """
    s, w, tokens = weights.sizes, weights, len(x)
    columns = s.width + (s.out_rank if adapted else 0)
    both = x.new_empty(tokens, columns)
    room.x[0].copy_(x)
    for number in range(s.layers):
        at, before = (number, max(number - 1, 0)) if room.keep else (0, 0)
        normed, y, first = room.normed[at], room.y[at], w.first[number]
        z = both[:, : s.width] if number else None
        norm, bias = norms[number], w.residual_bias[max(number - 1, 0)]
        to = (room.x[at], normed, room.stats[at])
        kernels.residual_norm(room.x[before], z, bias, norm.weight, norm.bias, norm.eps, *to)
        is_last = number == s.layers - 1
        needed = slice(s.up.start) if is_last else slice(s.of_y)
        torch.mm(normed, first[needed, : s.width].t(), out=y[:, needed])
        if room.dropout:
            _drop_input(w, number, normed, y, room, at)
        b = w.b[number] if adapted else None
        bias, out = w.heads_bias[number], room.out[at]
        attended = heads.forward(y, b, bias, pack, room.keep, out)
        if room.keep:
            room.attended.append(attended)
        given = attended.out
        if room.dropout and s.out_rank:
            kernels.drop(given, room.masks[number, 3:], room.scale, room.dropped[at, 3:])
            given = room.dropped[at, 3]
        if not is_last:
            wide = room.wide[at, :, : s.wide + columns - s.width]
            _leave(w, number, attended.out, given, y[:, s.up], wide, both)
    rows = pack.last
    up = normed[rows] @ first[s.up, : s.width].t()
    wide, both = up.new_empty(len(rows), s.wide + columns - s.width), both[: len(rows)]
    at_rows = attended.out[rows]
    room.last = Last(up, wide, at_rows if given is attended.out else given[rows])
    _leave(w, number, at_rows, room.last.given, up, wide, both)
    return room.x[-1][rows] + both[:, : s.width] + w.residual_bias[-1]


def _drop_input(w: Weights, number: int, normed: Tensor, y: Tensor, room: Room, at: int) -> None:
    """Have each A on query, key and value see a part of the layer's input, each another."""
    s = w.sizes
    kernels.drop(normed, room.masks[number, :3], room.scale, room.dropped[at, :3])
    inner = y[:, s.inner].view(len(y), 3, s.rank).transpose(0, 1)
    a = w.a[number].view(3, s.rank, s.width)
    torch.bmm(room.dropped[at, :3], a.transpose(1, 2), out=inner)


def _leave(
    w: Weights, number: int, attended: Tensor, given: Tensor, up: Tensor, wide: Tensor, both: Tensor
) -> None:
    """Write to `both` [rows, width + rank of A_o] what the layer adds to its input; A_o is given
    `given`, and has rank 0 where the adapter is left out."""
    s, rank = w.sizes, both.shape[1] - w.sizes.width
    torch.mm(attended, w.out[number, : s.width + rank].t(), out=both)
    if rank and given is not attended:
        torch.mm(given, w.out[number, s.width :].t(), out=both[:, s.width :])
    kernels.bias_gelu(up, w.up_bias[number], both[:, s.width :], wide)
    both[:, : s.width].addmm_(wide, w.down[number, :, : s.wide + rank].t())


def backward(
    weights: Weights, norms: Sequence[nn.LayerNorm], grad: Tensor, pack: Pack, room: Room
) -> list[Tensor]:
    """The gradients of an adapter's A and B, A_o and B_o, from those of the output [rows, width].

    What forward kept in `room` is used up.
    """
    s, w, tokens, last = weights.sizes, weights, len(room.x[0]), room.last
    assert last
    residuals = grad.new_empty(s.layers - 1, tokens, s.width + s.out_rank)  # and of attended A_o'
    at_last = grad.new_empty(len(grad), s.width + s.out_rank)
    at_last[:, : s.width].copy_(grad)
    inputs = grad.new_empty(s.layers, tokens, s.width + 3 * s.rank)  # of normed, and of inner
    d_wide = grad.new_empty(tokens, s.wide + s.out_rank)

    def spread(of_rows: Tensor) -> Tensor:
        return of_rows.new_zeros(tokens, s.width).index_add_(0, pack.last, of_rows)

    for number in reversed(range(s.layers)):
        y, first, is_last = room.y[number], w.first[number], number == s.layers - 1
        both, up = (at_last, last.up) if is_last else (residuals[number], y[:, s.up])
        g, d_inner_out = both[:, : s.width], both[:, s.width :]
        if number:
            torch.mm(g, w.down[number], out=d_wide[: len(g)])
            kernels.gelu_backward(up, w.up_bias[number], d_wide[: len(g)], d_inner_out)
        else:  # nothing is trained before the first layer
            torch.mm(g, w.down[number, :, s.wide :], out=d_inner_out)
        d_attended = _through_out(w.out[number], both, room, number, pack.last if is_last else None)
        if is_last:
            g, d_attended = spread(g), spread(d_attended)
        heads.backward(room.attended[number], d_attended, y, pack)
        d_normed, d_inner = inputs[number, :, : s.width], inputs[number, :, s.width :]
        if number == 0:
            torch.mm(y[:, s.heads], first[s.heads, s.width :], out=d_inner)
            break
        torch.mm(y[:, s.heads], first[s.heads], out=inputs[number])
        if is_last:
            d_normed.index_add_(0, pack.last, up @ first[s.up, : s.width])
        else:
            d_normed.addmm_(up, first[s.up, : s.width])
        if room.dropout:
            each = d_inner.view(tokens, 3, s.rank).transpose(0, 1)
            through = torch.bmm(each, w.a[number].view(3, s.rank, s.width))
            kernels.add_kept(d_normed, through, room.masks[number, :3], room.scale)
        else:
            d_normed.addmm_(d_inner, w.a[number])
        x, stats, into = room.x[number], room.stats[number], residuals[number - 1, :, : s.width]
        kernels.norm_backward(x, stats, norms[number].weight, d_normed, g, into)
    return [*_head_gradients(s, room, inputs), *_out_gradients(s, room, residuals, at_last)]


def _through_out(out: Tensor, both: Tensor, room: Room, number: int, rows: Tensor | None) -> Tensor:
    """The gradient of attended values (of some rows), from `both`: of z and of attended A_o'."""
    width = out.shape[1]
    if not room.dropout or both.shape[1] == width:
        return both @ out
    mask = room.masks[number, 3:] if rows is None else room.masks[number, 3:, rows]
    grad = both[:, :width] @ out[:width]
    through = both[:, width:] @ out[width:]
    kernels.add_kept(grad, through.unsqueeze(0), mask, room.scale)
    return grad


def _head_gradients(s: Sizes, room: Room, inputs: Tensor) -> list[Tensor]:
    """Those of A and B, of all layers at once, as a layer's own are small products."""
    d_a = inputs.new_empty(s.layers, 3, s.rank, s.width)
    d_b = inputs.new_empty(s.layers, 3, s.width, s.rank)
    inner, d_inner = room.y[:, :, s.inner], inputs[:, :, s.width :]
    for part in range(3):
        ranks = slice(part * s.rank, (part + 1) * s.rank)
        columns = slice(part * s.width, (part + 1) * s.width)
        given = room.dropped[:, part] if room.dropout else room.normed
        torch.bmm(d_inner[:, :, ranks].transpose(1, 2), given, out=d_a[:, part])
        torch.bmm(room.y[:, :, columns].transpose(1, 2), inner[:, :, ranks], out=d_b[:, part])
    return [d_a.flatten(0, 1), d_b.flatten(0, 1)]


def _out_gradients(s: Sizes, room: Room, residuals: Tensor, at_last: Tensor) -> list[Tensor]:
    """Those of A_o and B_o, where they are."""
    if not s.out_rank:
        return []
    assert room.last
    d_a = residuals.new_empty(s.layers, s.rank, s.width)
    d_b = residuals.new_empty(s.layers, s.width, s.rank)
    given = room.dropped[:-1, 3] if room.dropout else room.out[:-1]
    d_z, d_inner = residuals[:, :, : s.width], residuals[:, :, s.width :]
    torch.bmm(d_inner.transpose(1, 2), given, out=d_a[:-1])
    torch.bmm(d_z.transpose(1, 2), room.wide[:-1, :, s.wide :], out=d_b[:-1])
    torch.mm(at_last[:, s.width :].t(), room.last.given, out=d_a[-1])
    torch.mm(at_last[:, : s.width].t(), room.last.wide[:, s.wide :], out=d_b[-1])
    return [d_a, d_b]
