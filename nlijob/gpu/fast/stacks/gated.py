"""Decoder layers with RMS norms, grouped queries and a gated MLP, as large products and kernels.

    q, k, v = rotated(norm(x) W_qkv')              each W with its adapters, see `projection`
    h = x + attention(q, k, v) W_o'
    x = h + (activation(gate) * up) W_down'        gate, up = norm(h) W_gate_up'

Query, key and value are one product, and so are gate and up. The last layer computes what follows
attention for the rows' last tokens only. Values are in the compute dtype, sums in float32.

Some families have other norms: of the outputs of attention and of the MLP, before the residual is
added (besides those above, or in place of them), and of query and key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlijob.gpu.fast import fused_attention as attention
from nlijob.gpu.fast import gated_kernels
from nlijob.gpu.fast.dropout import mask
from nlijob.gpu.fast.fused_attention import HeadAdapters, PackLayout
from nlijob.gpu.fast.gated_kernels import Activation, HeadNorms, Heads
from nlijob.gpu.fast.row_dropout import RowMasks
from nlijob.gpu.fast.stacks.function import seconds, timed_layers
from nlijob.gpu.fast.stacks.norms import Norms, OutputNorm, SumNorm, WideNorms
from nlijob.gpu.fast.stacks.projection import Projection
from nlijob.gpu.fast.stacks.step import Buffers, Dropout, Leaves, Step


@dataclass(frozen=True)
class GatedLayers:
    """The weights of all layers; see the module's formulas."""

    heads: Heads
    qkv: Projection
    o: Projection
    gate_up: Projection
    down: Projection
    norms: Norms
    activation: Activation
    qkv_bias: Sequence[Tensor] | None = None
    """[heads.columns] in each layer."""
    o_bias: Sequence[Tensor] | None = None
    """[width] in each layer."""

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
        kept = torch.Size((len(layers) if keep else 1, tokens, of.o.outputs))
        self.h = SumNorm(of.norms.mlp, like, layers, kept)
        self._of = of
        after_o, after_down = of.norms.attention_output, of.norms.mlp_output
        self._after_o = after_o and OutputNorm(after_o, of.o_bias, like, layers, kept)
        self._after_down = after_down and OutputNorm(after_down, None, like, layers, kept)
        self._o_bias = [of.o_bias[layer] for layer in layers] if of.o_bias and not after_o else None
        self.o = Step(of.o, like, layers, tokens, keep, bool(after_o), given=attended)
        self.gate_up = Step(of.gate_up, like, layers, tokens, keep, True, self.h.given())
        self.down = Step(of.down, like, layers, tokens, keep, bool(after_down))
        self.steps = (self.o, self.gate_up, self.down)
        # without a norm between them, a sum and its last term have the same gradient
        self._d_h = like.new_empty(kept[1:]) if after_o and keep else None
        self._d_total = like.new_empty(kept[1:]) if after_down and keep else None

    def d_total(self, number: int) -> Tensor:
        """Where the gradient of a layer's output goes before `backward`."""
        return self.down.output(number) if self._d_total is None else self._d_total

    def forward(self, number: int, x: Tensor, adapts: bool) -> tuple[Tensor, Tensor]:
        """The layer's output as a sum of two, from its input x and attention in `o.given`."""
        z, bias = self.o.forward(number, adapts), self._o_bias[number] if self._o_bias else None
        if self._after_o:
            z = self._after_o.forward(number, z)
        self.h.forward(number, x, z, bias, self.gate_up.given[number])
        gate_up = self.gate_up.forward(number, adapts)
        self._of.activation.forward(gate_up, self.down.given[number])
        z = self.down.forward(number, adapts)
        return self.h.total[number], self._after_down.forward(number, z) if self._after_down else z

    def backward(self, number: int) -> tuple[Tensor, Tensor]:
        """Gradients of x and of attention, from that of the layer's output in `d_total`."""
        d_total, d_h = self.d_total(number), self._d_h
        if self._after_down:
            self._after_down.backward(number, self.down.output(number), d_total)
        d_down = self.down.backward(number)
        self._of.activation.backward(self.gate_up.output(number), d_down)
        d_h = self.o.output(number) if d_h is None else d_h
        self.h.backward(number, self.gate_up.backward(number), d_total, d_h)
        if self._after_o:
            self._after_o.backward(number, self.o.output(number), d_h)
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
        tokens, kept, layers = len(x), of.layers if keep else 1, range(of.layers)
        self.keep = keep
        self.x = SumNorm(of.norms.attention, x, layers, torch.Size((kept, *x.shape)))
        self.qkv = Step(of.qkv, x, layers, tokens, keep, True, self.x.given())
        norms, shape = of.norms.all_heads, torch.Size((kept, tokens, of.heads.columns))
        self.wide_norms = norms and WideNorms(norms, of.qkv_bias, of.heads, x, shape)
        self.final = Buffers(x.new_empty(shape)) if of.norms.heads or norms else None
        """Heads after norm and rotation; without norms, they replace the output of `qkv`."""
        self.out = Buffers(x.new_empty(kept, tokens, of.heads.query_width))
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
                at_last.dropout = Dropout(x, masks[-1:, :, last], share, 1)
                masks = masks[:-1]
            step.dropout = Dropout(x, masks, share, len(masks) if self.keep else 1)

    def heads(self, number: int) -> Tensor:
        """Final heads of a layer, [tokens, heads.columns]."""
        return self.final[number] if self.final else self.qkv.output(number)


def forward(
    of: GatedLayers, x: Tensor, packs: Sequence[PackLayout], ws: Workspace, adapts: bool
) -> Tensor:
    """Hidden states [rows, width] after all layers at the tokens `last` of the pack.

    x: [tokens, width], the embeddings. `packs`: the layout of the pack for each layer. `adapts`:
    use the adapters.
    """
    total, z = ws.x.total[0].copy_(x), None
    for number, pack in enumerate(packs):
        x, is_last = ws.x.total[number], number == of.layers - 1
        ws.x.forward(number, total, z, None, ws.qkv.given[number])
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
    if ws.wide_norms:
        ws.wide_norms.forward(number, ws.qkv.forward(number, adapts), out)
        gated_kernels.complete_heads(out, *given, out)
    elif adds_b and attention.finishes_heads(out, of.heads, of.qkv.rank):
        ws.qkv.forward(number, adapts, adds=False)
        first = of.heads.query_width
        starts = (0, first, first + of.heads.key_width)
        query, key, value = (of.qkv.first_rank_at(start) for start in starts)
        adapters = HeadAdapters(of.qkv.rank, of.qkv.b[number], (query, key, value))
        attention.finish_heads(ws.qkv.y[number], adapters, *given, out)
    else:
        gated_kernels.complete_heads(ws.qkv.forward(number, adapts), *given, out)
    return out


def backward(
    of: GatedLayers, grad: Tensor, packs: Sequence[PackLayout], ws: Workspace
) -> list[Tensor]:
    """Gradients of the adapters' A and B, one after the other, from the output's [rows, width].

    This overwrites what `forward` kept in `ws`.
    """
    ws.last.d_total(0).copy_(grad)
    for number in reversed(range(of.layers)):
        pack, is_last = packs[number], number == of.layers - 1
        tail, at = (ws.last, 0) if is_last else (ws.tail, number)
        d_x, d_out = tail.backward(at)
        if is_last:
            d_x, d_out = (_spread(part, len(pack.cosine), pack.last) for part in (d_x, d_out))
        if number == 0 and not of.qkv.ranks:
            break
        _heads_backward(of, number, d_out, pack, ws)
        if number == 0:  # nothing before the first layer is trained
            ws.qkv.inner_backward(number)
            break
        ws.x.backward(number, ws.qkv.backward(number), d_x, ws.tail.d_total(number - 1))
    return _gradients(of, ws)


def _heads_backward(
    of: GatedLayers, number: int, d_out: Tensor, pack: PackLayout, ws: Workspace
) -> None:
    """Replace the output of `qkv` in a layer by its gradient, from that of attention."""
    y, final = ws.qkv.output(number), ws.heads(number)
    into = final if ws.wide_norms else y
    others = (of.heads, pack, *_of_heads(of, number), into)
    attention.heads_backward(ws.attended[number], d_out, final, *others)
    if ws.wide_norms:
        ws.wide_norms.backward(number, y, final)


def _of_heads(of: GatedLayers, number: int) -> tuple[Tensor | None, HeadNorms | None]:
    """Bias and norms of a layer's heads, but for what `WideNorms` does."""
    bias = of.qkv_bias[number] if of.qkv_bias and not of.norms.all_heads else None
    return bias, of.norms.heads[number] if of.norms.heads else None


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
                ws.out.all.new_empty(of.layers, projection.rank, projection.inputs),
                ws.out.all.new_empty(of.layers, part.stop - part.start, projection.rank),
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

    return seconds(work, like.device) / layers
