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
        self.stats = x.new_empty(n, tokens, 2, dtype=torch.float32)
        self.y = x.new_empty(n, tokens, s.of_y)
        self.wide = x.new_empty(n, tokens, s.wide + s.out_rank)
        self.attended: list[heads.Attended] = []
        """Of each layer, where it is needed again."""
        if dropout:
            inputs = 4 if s.out_rank else 3  # of query, key, value and output, each its own mask
            masks = x.new_empty(s.layers, inputs, tokens, s.width, dtype=torch.uint8)
            self.masks = masks.bernoulli_(1 - dropout)
            self.dropped = x.new_empty(n, inputs, tokens, s.width)


def forward(
    weights: Weights,
    norms: Sequence[nn.LayerNorm],
    x: Tensor,
    pack: Pack,
    room: Room,
    adapted: bool,
) -> Tensor:
    """[tokens, width] -> the same, through all layers. `adapted`: with the adapter."""
    s, w, tokens = weights.sizes, weights, len(x)
    out_rank = s.out_rank if adapted else 0
    both = x.new_empty(tokens, s.width + out_rank)
    z: Tensor | None = None
    room.x[0].copy_(x)
    for number in range(s.layers):
        at, before = (number, max(number - 1, 0)) if room.keep else (0, 0)
        normed, y, wide = room.normed[at], room.y[at], room.wide[at, :, : s.wide + out_rank]
        norm, bias = norms[number], w.residual_bias[max(number - 1, 0)]
        to = (room.x[at], normed, room.stats[at])
        kernels.residual_norm(room.x[before], z, bias, norm.weight, norm.bias, norm.eps, *to)
        torch.mm(normed, w.first[number, :, : s.width].t(), out=y)
        if adapted:
            inner = y[:, s.inner].view(tokens, 3, s.rank).transpose(0, 1)
            if room.dropout:
                dropped = room.dropped[at, :3]
                kernels.drop(normed, room.masks[number, :3], room.scale, dropped)
                a = w.a[number].view(3, s.rank, s.width)
                torch.bmm(dropped, a.transpose(1, 2), out=inner)
            each = y[:, s.heads].view(tokens, 3, s.width).transpose(0, 1)
            each.baddbmm_(inner, w.b[number].transpose(1, 2))
        attended = heads.forward(y[:, s.heads], w.heads_bias[number], pack, room.keep)
        if room.keep:
            room.attended.append(attended)
        torch.mm(attended.out, w.out[number, : s.width + out_rank].t(), out=both)
        if room.dropout and out_rank:
            dropped = room.dropped[at, 3:]
            kernels.drop(attended.out, room.masks[number, 3:], room.scale, dropped)
            torch.mm(dropped[0], w.out[number, s.width :].t(), out=both[:, s.width :])
        kernels.bias_gelu(y[:, s.up], w.up_bias[number], both[:, s.width :], wide)
        z = both[:, : s.width]
        z.addmm_(wide, w.down[number, :, : s.wide + out_rank].t())
    return room.x[-1] + both[:, : s.width] + w.residual_bias[-1]


def backward(
    weights: Weights, norms: Sequence[nn.LayerNorm], grad: Tensor, pack: Pack, room: Room
) -> list[Tensor]:
    """The gradients of an adapter's A and B, A_o and B_o, from the output's [tokens, width].

    What forward kept in `room` is used up.
    """
    s, w, tokens = weights.sizes, weights, len(grad)
    residuals = grad.new_empty(s.layers, tokens, s.width + s.out_rank)  # and of attended A_o'
    inputs = grad.new_empty(s.layers, tokens, s.width + 3 * s.rank)  # of normed, and of inner
    d_wide = grad.new_empty(tokens, s.wide + s.out_rank)
    residuals[-1, :, : s.width].copy_(grad)
    for number in reversed(range(s.layers)):
        g, d_inner_out = residuals[number, :, : s.width], residuals[number, :, s.width :]
        y, out, first = room.y[number], w.out[number], w.first[number]
        if number:
            torch.mm(g, w.down[number], out=d_wide)
            kernels.gelu_backward(y[:, s.up], w.up_bias[number], d_wide, d_inner_out)
        elif s.out_rank:
            torch.mm(g, w.down[number, :, s.wide :], out=d_inner_out)
        if room.dropout and s.out_rank:
            d_attended = g @ out[: s.width]
            through = (d_inner_out @ out[s.width :]).unsqueeze(0)
            kernels.add_kept(d_attended, through, room.masks[number, 3:], room.scale)
        else:
            d_attended = residuals[number] @ out
        attended, bias = room.attended[number], w.heads_bias[number]
        heads.backward(attended, d_attended, y[:, s.heads], bias, pack)
        d_normed, d_inner = inputs[number, :, : s.width], inputs[number, :, s.width :]
        if number == 0:  # nothing is trained before the first layer
            torch.mm(y[:, s.heads], first[s.heads, s.width :], out=d_inner)
            break
        torch.mm(y[:, s.heads], first[s.heads], out=inputs[number])
        d_normed.addmm_(y[:, s.up], first[s.up, : s.width])
        if room.dropout:
            each = d_inner.view(tokens, 3, s.rank).transpose(0, 1)
            through = torch.bmm(each, w.a[number].view(3, s.rank, s.width))
            kernels.add_kept(d_normed, through, room.masks[number, :3], room.scale)
        else:
            d_normed.addmm_(d_inner, w.a[number])
        x, stats, into = room.x[number], room.stats[number], residuals[number - 1, :, : s.width]
        kernels.norm_backward(x, stats, norms[number].weight, d_normed, g, into)
    return _leaf_gradients(s, room, residuals, inputs)


def _leaf_gradients(s: Sizes, room: Room, residuals: Tensor, inputs: Tensor) -> list[Tensor]:
    """Of all layers at once, as a layer's own are small products."""
    d_a = inputs.new_empty(s.layers, 3, s.rank, s.width)
    d_b = inputs.new_empty(s.layers, 3, s.width, s.rank)
    inner, d_inner = room.y[:, :, s.inner], inputs[:, :, s.width :]
    for part in range(3):
        ranks = slice(part * s.rank, (part + 1) * s.rank)
        columns = slice(part * s.width, (part + 1) * s.width)
        given = room.dropped[:, part] if room.dropout else room.normed
        torch.bmm(d_inner[:, :, ranks].transpose(1, 2), given, out=d_a[:, part])
        torch.bmm(room.y[:, :, columns].transpose(1, 2), inner[:, :, ranks], out=d_b[:, part])
    gradients = [d_a.flatten(0, 1), d_b.flatten(0, 1)]
    if s.out_rank:
        attended = torch.stack([attended.out for attended in room.attended])
        given = room.dropped[:, 3] if room.dropout else attended
        gradients.append(torch.bmm(residuals[:, :, s.width :].transpose(1, 2), given))
        d_out = residuals[:, :, : s.width].transpose(1, 2)
        gradients.append(torch.bmm(d_out, room.wide[:, :, s.wide :]))
    return gradients
