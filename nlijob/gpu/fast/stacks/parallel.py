"""Decoder layers with attention and MLP side by side, as few large products and a kernel for all
that lies between two of them.

    y = norm(x) [A W_q W_k W_v W_1]'       A, B: LoRA on query, key and value (Hu et al., 2021)
    attended = attention(y's q, k, v + inner B')                            inner: y's part of A
    z = attended [W_o A_o]'                A_o, B_o: LoRA on the attention's output, where it is
    x = x + z + [gelu(y's part of W_1), z's part of A_o] [W_2 B_o]'

The adapter's matrices lie beside the base's, so that one product gives both; As lie behind them
once more, as backward their gradient comes after the others'. Biases are added on the way.
Everything is in the compute dtype; sums along a row are in float32.
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
from nlijob.gpu.fast.fused_attention import Pack

TIMED_LAYERS = 4
"""More than a GPU's cache holds the weights of."""
TIMES = 3


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
    def inner(self) -> slice:
        """What As make of the input."""
        return slice(3 * self.rank)

    @property
    def heads(self) -> slice:
        """Query, key and value."""
        return slice(self.inner.stop, self.inner.stop + 3 * self.width)

    @property
    def up(self) -> slice:
        """The MLP's first product."""
        return slice(self.heads.stop, self.heads.stop + self.wide)

    @property
    def asked(self) -> slice:
        """The gradient of `inner`."""
        return slice(self.up.stop, self.of_y)

    @property
    def of_y(self) -> int:
        """All of them."""
        return 6 * self.rank + 3 * self.width + self.wide


class Weights:
    """Those of all layers, side by side. Zero until they are filled."""

    def __init__(self, sizes: Sizes, device: torch.device, dtype: torch.dtype) -> None:
        """Raises torch.OutOfMemoryError."""
        s = self.sizes = sizes

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(s.layers, *shape, device=device, dtype=dtype)

        self.first = zeros(s.of_y, s.width)
        """Rows as the columns of `y`: forward from its beginning, backward to its end."""
        self.out = zeros(s.width + s.out_rank, s.width)
        """Rows: W_o, A_o."""
        self.down = zeros(s.width, s.wide + s.out_rank)
        """Columns: W_2, B_o."""
        self.heads_bias = zeros(3 * s.width)
        self.up_bias = zeros(s.wide)
        self.residual_bias = zeros(s.width)
        """That of W_o and of W_2."""
        self.a = self.first[:, s.inner]
        """[layers, 3 rank, width], within `first`."""
        self.b: Tensor
        """[layers, 3, width, rank], where the adapter has it."""

    @torch.no_grad()
    def place(self, leaves: Sequence[Tensor]) -> None:
        """Lay an adapter beside the base weights: A, B [3 layers, ...], then A_o, B_o."""
        s = self.sizes
        self.a.copy_(leaves[0].view_as(self.a))
        self.first[:, s.asked].copy_(self.a)
        self.b = leaves[1].view(s.layers, 3, s.width, s.rank)
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
        self.attended: list[attention.Attended] = []
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
        needed = slice(s.heads.stop if is_last else s.up.stop)
        torch.mm(normed, first[needed].t(), out=y[:, needed])
        if room.dropout:
            _drop_input(w, number, normed, y, room, at)
        b = w.b[number] if adapted else None
        bias, out = w.heads_bias[number], room.out[at]
        attended = attention.forward(y[:, s.heads], y[:, s.inner], b, bias, pack, room.keep, out)
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
    up = normed[rows] @ first[s.up].t()
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
    d_wide = grad.new_empty(tokens, s.wide + s.out_rank)

    def spread(of_rows: Tensor) -> Tensor:
        return of_rows.new_zeros(tokens, s.width).index_add_(0, pack.last, of_rows)

    for number in reversed(range(s.layers)):
        y, is_last = room.y[number], number == s.layers - 1
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
        of_heads, d_inner = y[:, s.heads], y[:, s.asked]
        attention.backward(room.attended[number], d_attended, of_heads, pack)
        each = of_heads.view(tokens, 3, s.width).transpose(0, 1)
        torch.bmm(each, w.b[number], out=d_inner.view(tokens, 3, s.rank).transpose(0, 1))
        if number == 0:
            break
        d_normed = _through_first(w, y, room, number, pack.last)
        x, stats, into = room.x[number], room.stats[number], residuals[number - 1, :, : s.width]
        kernels.norm_backward(x, stats, norms[number].weight, d_normed, g, into)
    return [*_head_gradients(s, room), *_out_gradients(s, room, residuals, at_last)]


def _through_first(w: Weights, y: Tensor, room: Room, number: int, rows: Tensor) -> Tensor:
    """The gradient of the normed input, from those of y's parts, which lie in y; the last layer has
    the MLP's for some rows alone."""
    s, first = w.sizes, w.first[number]
    is_last = number == s.layers - 1
    last_part = s.heads if is_last else s.up if room.dropout else s.asked
    parts = slice(s.heads.start, last_part.stop)
    d_normed = y[:, parts] @ first[parts]
    if is_last:
        assert room.last
        d_normed.index_add_(0, rows, room.last.up @ first[s.up])
    if room.dropout:
        each = y[:, s.asked].view(len(y), 3, s.rank).transpose(0, 1)
        through = torch.bmm(each, w.a[number].view(3, s.rank, s.width))
        kernels.add_kept(d_normed, through, room.masks[number, :3], room.scale)
    elif is_last:
        d_normed.addmm_(y[:, s.asked], w.a[number])
    return d_normed


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


def _head_gradients(s: Sizes, room: Room) -> list[Tensor]:
    """Those of A and B, of all layers at once, as a layer's own are small products."""
    y = room.y
    d_a = y.new_empty(s.layers, 3, s.rank, s.width)
    d_b = y.new_empty(s.layers, 3, s.width, s.rank)
    of_heads, inner, d_inner = y[:, :, s.heads], y[:, :, s.inner], y[:, :, s.asked]
    for part in range(3):
        ranks = slice(part * s.rank, (part + 1) * s.rank)
        columns = slice(part * s.width, (part + 1) * s.width)
        given = room.dropped[:, part] if room.dropout else room.normed
        torch.bmm(d_inner[:, :, ranks].transpose(1, 2), given, out=d_a[:, part])
        torch.bmm(of_heads[:, :, columns].transpose(1, 2), inner[:, :, ranks], out=d_b[:, part])
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


def product_seconds(weights: Weights, tokens: int) -> float:
    """What the products of some layers, there and back, take on a GPU for a pack of this size."""
    s, w = weights.sizes, weights
    x = torch.linspace(-1, 1, tokens * s.width, device=w.out.device).view(tokens, s.width)
    x = x.to(w.out.dtype)
    y, wide = x.new_empty(tokens, s.of_y), x.new_zeros(tokens, s.wide + s.out_rank)
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
