"""Decoder layers with RMS norms, grouped queries and a gated MLP, as large products and kernels.

    q, k, v = rotated(norm(x) W_qkv')              each W with its adapters, see `projection`
    h = x + attention(q, k, v) W_o'
    x = h + (silu(gate) * up) W_down'              gate, up = norm(h) W_gate_up'

Query, key and value are one product, and so are gate and up. The last layer computes what follows
attention for the rows' last tokens only. Values are in the compute dtype, sums in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlijob.gpu.fast import fused_attention as attention
from nlijob.gpu.fast import gated_kernels, kernels
from nlijob.gpu.fast.dropout import mask
from nlijob.gpu.fast.fused_attention import HeadAdapters, PackLayout
from nlijob.gpu.fast.gated_kernels import HeadNorms, Heads
from nlijob.gpu.fast.row_dropout import RowMasks
from nlijob.gpu.fast.stacks.function import seconds, timed_layers
from nlijob.gpu.fast.stacks.projection import Projection

Leaves = Sequence[tuple[Tensor, Tensor]]
"""A and B [layers, ...] of each adapter."""


@dataclass(frozen=True)
class Norm:
    """The weights of one RMS norm in all layers."""

    weight: Sequence[Tensor]
    """[width] in each layer."""
    epsilon: float


@dataclass(frozen=True)
class GatedLayers:
    """The weights of all layers; see the module's formulas."""

    heads: Heads
    qkv: Projection
    o: Projection
    gate_up: Projection
    down: Projection
    attention_norm: Norm
    mlp_norm: Norm
    qkv_bias: Sequence[Tensor] | None = None
    """[heads.columns] in each layer."""
    o_bias: Sequence[Tensor] | None = None
    """[width] in each layer."""
    head_norms: Sequence[HeadNorms] | None = None

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self.qkv.layers

    @property
    def wide(self) -> int:
        """Width of the MLP's hidden layer."""
        return self.down.inputs

    @property
    def projections(self) -> tuple[Projection, ...]:
        """All projections, in the order of their adapters."""
        return self.qkv, self.o, self.gate_up, self.down

    def place(self, leaves: Leaves) -> None:
        """Copy all adapters beside the base weights."""
        for projection, own in zip(self.projections, self.by_projection(leaves), strict=True):
            projection.place(own)

    def by_projection(self, leaves: Leaves) -> Iterator[Leaves]:
        """Split what belongs to each adapter by projection."""
        done = 0
        for projection in self.projections:
            yield leaves[done : done + len(projection.adapted)]
            done += len(projection.adapted)


class _Buffers:
    """Values of some layers, or of one at a time."""

    def __init__(self, values: Tensor) -> None:
        """values: [layers or 1, ...]"""
        self.all = values

    def __getitem__(self, number: int) -> Tensor:
        """The values of a layer, which replace an earlier layer's where only one is kept."""
        return self.all[min(number, len(self.all) - 1)]


class _Dropout:
    """Dropout of one projection's input, for each of its adapters, in some layers."""

    def __init__(self, like: Tensor, masks: Tensor, share: float, kept: int) -> None:
        """masks: [layers, adapters, tokens, inputs], 1 where a value is kept."""
        self.masks, self.scale = masks, 1 / (1 - share)
        self.dropped = _Buffers(like.new_empty(kept, *masks.shape[1:]))

    def __call__(self, number: int, x: Tensor) -> Tensor:
        """The input of a layer after dropout, [adapters, tokens, inputs]."""
        dropped = self.dropped[number]
        kernels.drop(x, self.masks[number], self.scale, dropped)
        return dropped


class _Step:
    """What one projection reads and writes in some layers, forward and backward."""

    def __init__(
        self,
        projection: Projection,
        like: Tensor,
        layers: range,
        tokens: int,
        keep: bool,
        in_place: bool,
        given: Tensor | None = None,
    ) -> None:
        """`in_place`: the output is kept, and its gradient replaces it. `given`: the inputs, where
        these are kept in any case.

        `keep`: a backward pass follows. What neither it nor an adapter's gradient needs is of one
        layer only.
        """
        self.projection, self._layers = projection, layers
        kept = len(layers) if keep else 1
        adapted = kept if projection.ranks else 1
        inputs, outputs, ranks = projection.inputs, projection.outputs, projection.ranks
        self.given = _Buffers(like.new_empty(adapted, tokens, inputs) if given is None else given)
        """The input, which is written here."""
        self.y = _Buffers(like.new_empty(kept if in_place else adapted, tokens, outputs + ranks))
        if keep:
            self._d_y = None if in_place else _Buffers(like.new_empty(adapted, tokens, outputs))
            self._d = _Buffers(like.new_empty(adapted, tokens, inputs + ranks))
        self.dropout: _Dropout | None = None

    def output(self, number: int) -> Tensor:
        """The output of a layer without the inner values, [tokens, outputs]."""
        return self.y[number][:, : self.projection.outputs]

    def d_output(self, number: int) -> Tensor:
        """The gradient of the output of a layer."""
        return self._d_y[number] if self._d_y else self.output(number)

    def forward(self, number: int, adapts: bool, adds: bool = True) -> Tensor:
        """Compute the output of a layer from `given`; see `Projection.forward`."""
        x, y = self.given[number], self.y[number]
        dropped = self.dropout(number, x) if self.dropout and adapts else None
        self.projection.forward(self._layers[number], x, y, adapts, dropped, adds)
        return self.output(number)

    def backward(self, number: int) -> Tensor:
        """Gradient of the input of a layer from `d_output`."""
        d, drops = self._d[number], self.dropout
        masks, scale = (drops.masks[number], drops.scale) if drops else (None, 1.0)
        layer = self._layers[number]
        self.projection.backward(layer, self.d_output(number), d, masks, scale)
        return d[:, : self.projection.inputs]

    def inner_backward(self, number: int) -> None:
        """As `backward`, where the gradient of the input is not needed."""
        layer = self._layers[number]
        self.projection.inner_backward(layer, self.d_output(number), self._d[number])

    def gradients(self, out: Leaves) -> None:
        """Write the gradients of the adapters in these layers."""
        given = self.dropout.dropped.all if self.dropout else self.given.all
        d_y = self._d_y.all if self._d_y else self.y.all[..., : self.projection.outputs]
        self.projection.gradients(given, self.y.all, d_y, self._d.all, out)


class _Tail:
    """What some layers compute after their attention, for all tokens or for the rows' last."""

    def __init__(
        self,
        of: GatedLayers,
        like: Tensor,
        layers: range,
        tokens: int,
        keep: bool,
        attended: Tensor | None = None,
    ) -> None:
        """`attended`: where attention's outputs are kept."""
        kept = len(layers) if keep else 1
        self._of, self._layers = of, layers
        self.h = _Buffers(like.new_empty(kept, tokens, of.o.outputs))
        self.scale = _Buffers(like.new_empty(kept, tokens, dtype=torch.float32))
        self.o = _Step(of.o, like, layers, tokens, keep, in_place=False, given=attended)
        self.gate_up = _Step(of.gate_up, like, layers, tokens, keep, in_place=True)
        self.down = _Step(of.down, like, layers, tokens, keep, in_place=False)
        self.steps = (self.o, self.gate_up, self.down)

    def forward(self, number: int, x: Tensor, adapts: bool) -> tuple[Tensor, Tensor]:
        """The layer's output as a sum of two, from its input x and attention in `o.given`."""
        of, h, layer = self._of, self.h[number], self._layers[number]
        z = self.o.forward(number, adapts)
        bias = of.o_bias[layer] if of.o_bias else None
        norm, to = of.mlp_norm, (h, self.gate_up.given[number], self.scale[number])
        gated_kernels.residual_rms(x, z, bias, norm.weight[layer], norm.epsilon, *to)
        gated_kernels.swiglu(self.gate_up.forward(number, adapts), self.down.given[number])
        return h, self.down.forward(number, adapts)

    def backward(self, number: int) -> tuple[Tensor, Tensor]:
        """Gradients of x and of attention, from that of the layer's output in `down`."""
        weight = self._of.mlp_norm.weight[self._layers[number]]
        gated_kernels.swiglu_backward(self.gate_up.output(number), self.down.backward(number))
        d_normed = self.gate_up.backward(number)
        d_h = self.o.d_output(number)
        given = (self.h[number], self.scale[number], weight, d_normed)
        gated_kernels.rms_backward(*given, self.down.d_output(number), d_h)
        return d_h, self.o.backward(number)


class Workspace:
    """Buffers for the layers' values: one per layer if a backward pass follows, else only one."""

    def __init__(
        self,
        of: GatedLayers,
        x: Tensor,
        last: Tensor,
        keep: bool,
        dropout: float,
        row_masks: RowMasks | None = None,
    ) -> None:
        """`last`: [rows], the last token of each. `row_masks`: where dropout goes by row."""
        tokens, kept = len(x), of.layers if keep else 1
        self.keep = keep
        self.x = _Buffers(x.new_empty(kept, *x.shape))
        self.scale = _Buffers(x.new_empty(kept, tokens, dtype=torch.float32))
        self.qkv = _Step(of.qkv, x, range(of.layers), tokens, keep, in_place=True)
        self.final = (
            _Buffers(x.new_empty(kept, tokens, of.heads.columns)) if of.head_norms else None
        )
        """Heads after norm and rotation; without norms, they replace the output of `qkv`."""
        self.out = _Buffers(x.new_empty(kept, tokens, of.heads.query_width))
        self.attended: list[attention.AttentionResult] = []
        before = of.layers - 1
        # attention's backward pass needs its output anyway
        self.tail = _Tail(of, x, range(before), tokens, keep, self.out.all[:before])
        self.last = _Tail(of, x, range(before, of.layers), len(last), keep)
        if dropout:
            self._drop(of, x, last, dropout, row_masks)

    def _drop(
        self, of: GatedLayers, x: Tensor, last: Tensor, share: float, row_masks: RowMasks | None
    ) -> None:
        first = 0
        steps = [(self.qkv, None), *zip(self.tail.steps, self.last.steps, strict=True)]
        for step, at_last in steps:
            projection = step.projection
            each = len(projection.adapted)
            if not each:
                continue
            like = x.new_empty(len(x), projection.inputs)
            calls = of.layers * each
            numbers = torch.arange(first, first + calls, device=x.device, dtype=torch.int32)
            masks = (
                row_masks.masks(like, numbers, share)
                if row_masks
                else mask(like, share, calls, dtype=torch.uint8)
            ).view(of.layers, each, *like.shape)
            first += calls
            if at_last:
                at_last.dropout = _Dropout(x, masks[-1:, :, last], share, 1)
                masks = masks[:-1]
            step.dropout = _Dropout(x, masks, share, len(masks) if self.keep else 1)

    def heads(self, number: int) -> Tensor:
        """Final heads of a layer, [tokens, heads.columns]."""
        return self.final[number] if self.final else self.qkv.output(number)


def forward(of: GatedLayers, x: Tensor, pack: PackLayout, ws: Workspace, adapts: bool) -> Tensor:
    """Hidden states [rows, width] after all layers at the tokens `pack.last`.

    x: [tokens, width], the embeddings. `adapts`: use the adapters.
    """
    total, z = ws.x[0].copy_(x), None
    for number in range(of.layers):
        x, norm, is_last = ws.x[number], of.attention_norm, number == of.layers - 1
        to = (x, ws.qkv.given[number], ws.scale[number])
        gated_kernels.residual_rms(total, z, None, norm.weight[number], norm.epsilon, *to)
        heads, out = _heads(of, number, pack, ws, adapts), ws.out[number]
        attended = attention.attend_heads(heads, of.heads, pack, ws.keep, out)
        if ws.keep:
            ws.attended.append(attended)
        tail, at = (ws.last, 0) if is_last else (ws.tail, number)
        if is_last:
            x = x[pack.last]
            torch.index_select(out, 0, pack.last, out=tail.o.given[0])
        total, z = tail.forward(at, x, adapts)
    assert z is not None
    return total + z


def _heads(of: GatedLayers, number: int, pack: PackLayout, ws: Workspace, adapts: bool) -> Tensor:
    """Compute a layer's final heads, [tokens, heads.columns]."""
    out, given = ws.heads(number), (*_of_heads(of, number), pack.cosine, pack.sine, of.heads)
    adds_b = adapts and bool(of.qkv.ranks)
    if adds_b and attention.finishes_heads(out, of.heads, of.qkv.rank):
        ws.qkv.forward(number, adapts, adds=False)
        first = of.heads.query_width
        starts = (0, first, first + of.heads.key_width)
        query, key, value = (of.qkv.first_rank_at(start) for start in starts)
        adapters = HeadAdapters(of.qkv.rank, of.qkv.b[number], (query, key, value))
        attention.finish_heads(ws.qkv.y[number], adapters, *given, out)
    else:
        gated_kernels.complete_heads(ws.qkv.forward(number, adapts), *given, out)
    return out


def backward(of: GatedLayers, grad: Tensor, pack: PackLayout, ws: Workspace) -> list[Tensor]:
    """Gradients of the adapters' A and B, one after the other, from the output's [rows, width].

    This overwrites what `forward` kept in `ws`.
    """
    ws.last.down.d_output(0).copy_(grad)
    for number in reversed(range(of.layers)):
        is_last = number == of.layers - 1
        tail, at = (ws.last, 0) if is_last else (ws.tail, number)
        d_x, d_out = tail.backward(at)
        if is_last:
            d_x, d_out = (_spread(part, len(ws.x[0]), pack.last) for part in (d_x, d_out))
        if number == 0 and not of.qkv.ranks:
            break
        y, final = ws.qkv.output(number), ws.heads(number)
        others = (of.heads, pack, *_of_heads(of, number), y)
        attention.heads_backward(ws.attended[number], d_out, final, *others)
        if number == 0:  # nothing before the first layer is trained
            ws.qkv.inner_backward(number)
            break
        weight, d_normed = of.attention_norm.weight[number], ws.qkv.backward(number)
        given = (ws.x[number], ws.scale[number], weight, d_normed, d_x)
        gated_kernels.rms_backward(*given, ws.tail.down.d_output(number - 1))
    return _gradients(of, ws)


def _of_heads(of: GatedLayers, number: int) -> tuple[Tensor | None, HeadNorms | None]:
    """Bias and norms of a layer's heads."""
    bias = of.qkv_bias[number] if of.qkv_bias else None
    return bias, of.head_norms[number] if of.head_norms else None


def _spread(of_rows: Tensor, tokens: int, last: Tensor) -> Tensor:
    """Gradients of all tokens, from those of the rows' last tokens."""
    return of_rows.new_zeros(tokens, of_rows.shape[1]).index_add_(0, last, of_rows)


def _gradients(of: GatedLayers, ws: Workspace) -> list[Tensor]:
    """Gradients of all layers at once: layer by layer, the products would be small."""
    gradients: list[Tensor] = []
    steps = [(ws.qkv, None), *zip(ws.tail.steps, ws.last.steps, strict=True)]
    for step, at_last in steps:
        projection = step.projection
        out = [
            (
                ws.x.all.new_empty(of.layers, projection.rank, projection.inputs),
                ws.x.all.new_empty(of.layers, part.stop - part.start, projection.rank),
            )
            for part in projection.adapted
        ]
        before = slice(-1) if at_last else slice(None)
        step.gradients([(a[before], b[before]) for a, b in out])
        if at_last:
            at_last.gradients([(a[-1:], b[-1:]) for a, b in out])
        gradients += [gradient for pair in out for gradient in pair]
    return gradients


def product_seconds(of: GatedLayers, tokens: int) -> float:
    """Seconds for the forward and backward products of a layer with a pack of this size."""
    like, layers = of.qkv.weight, timed_layers(tokens, of.layers)
    given = [
        torch.linspace(-1, 1, tokens * each.inputs, device=like.device).view(tokens, -1).to(like)
        for each in of.projections
    ]
    outputs = [like.new_zeros(tokens, each.outputs + each.ranks) for each in of.projections]
    back = [like.new_empty(tokens, each.inputs + each.ranks) for each in of.projections]

    def work() -> None:
        for number in range(layers):
            for each, x, y, d in zip(of.projections, given, outputs, back, strict=True):
                each.forward(number, x, y, True, None)
                each.backward(number, y[:, : each.outputs], d, None, 1.0)

    return seconds(work) / layers
