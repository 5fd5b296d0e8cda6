"""Decoder layers with parallel attention and MLP, as a few large matrix products and kernels.

    y = norm(x) [A W_q W_k W_v W_1]'       A, B: LoRA on query, key and value (Hu et al., 2021)
    attended = attention(y's q, k, v + inner B')                            inner: y's part of A
    z = attended [W_o A_o]'                A_o, B_o: LoRA on the attention's output
    g = gelu(y's part of W_1 + y's part of A_1 B_1')                        A_1, B_1: LoRA on W_1
    x = x + z + [g, z's part of A_o, g A_2'] [W_2 B_o B_2]'                 A_2, B_2: LoRA on W_2

Any of these adapters may be missing, in all layers alike. The adapters' matrices lie beside the
base weights where one product can then compute both. The As of norm(x) are there a second time at
the end, because their gradient follows the others in the backward pass. Biases are added by the
kernels. Values are in the compute dtype; sums along a row are in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nlijob.gpu.fast import fused_attention as attention
from nlijob.gpu.fast import kernels, low_rank
from nlijob.gpu.fast.dropout import mask
from nlijob.gpu.fast.fused_attention import PackLayout
from nlijob.gpu.fast.row_dropout import RowMasks
from nlijob.gpu.fast.stacks.function import seconds, timed_layers

HEADS = ("query", "key", "value")
PARTS = (*HEADS, "out", "up", "down")
"""A layer's linear parts that may have an adapter, in the model's order."""


@dataclass(frozen=True)
class LayerDims:
    """Dimensions of the layers, their adapters, and the columns of the parts of `y`."""

    layers: int
    width: int
    wide: int
    """Width of the MLP's hidden layer."""
    rank: int
    parts: tuple[str, ...]
    """The parts with an adapter of that rank, in the order of PARTS."""

    def rank_of(self, *parts: str) -> int:
        """`rank` if one of these parts has an adapter, or 0."""
        return self.rank if set(parts) & set(self.parts) else 0

    @property
    def heads_rank(self) -> int:
        """Rank on query, key and value; where one of them has no adapter, its A and B are 0."""
        return self.rank_of(*HEADS)

    @property
    def out_rank(self) -> int:
        """Rank on the attention's output."""
        return self.rank_of("out")

    @property
    def up_rank(self) -> int:
        """Rank on the MLP's first product."""
        return self.rank_of("up")

    @property
    def down_rank(self) -> int:
        """Rank on the MLP's second product."""
        return self.rank_of("down")

    @property
    def adapted_heads(self) -> slice:
        """Which of query, key and value have an adapter."""
        numbers = [number for number, part in enumerate(HEADS) if part in self.parts]
        # any some of three numbers have equal distances
        return slice(numbers[0], numbers[-1] + 1, numbers[1] - numbers[0] if numbers[1:] else 1)

    @property
    def readers(self) -> int:
        """Number of As that read the normalised input: of query, key and value, and of `up`."""
        return 3 * bool(self.heads_rank) + bool(self.up_rank)

    @property
    def inner(self) -> slice:
        """Products of the normalised input with the As."""
        return slice(self.readers * self.rank)

    @property
    def heads_inner(self) -> slice:
        """The part of `inner` for query, key and value."""
        return slice(3 * self.heads_rank)

    @property
    def up_inner(self) -> slice:
        """The part of `inner` for the MLP's first product."""
        return slice(self.heads_inner.stop, self.inner.stop)

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
    def d_heads_inner(self) -> slice:
        """Gradient of `heads_inner`."""
        return slice(self.up.stop, self.up.stop + 3 * self.heads_rank)

    @property
    def d_up_inner(self) -> slice:
        """Gradient of `up_inner`."""
        return slice(self.d_heads_inner.stop, self.y_width)

    @property
    def y_width(self) -> int:
        """Number of columns of `y`."""
        return 2 * self.readers * self.rank + 3 * self.width + self.wide

    @property
    def beside(self) -> int:
        """Columns beside the activation: products with the As of `out` and `down`."""
        return self.out_rank + self.down_rank


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
        self.down = zeros(dims.width, dims.wide + dims.beside)
        """[layers, width, wide + beside]: W_2 beside B_o and B_2."""
        self.heads_bias = zeros(3 * dims.width)
        self.up_bias = zeros(dims.wide)
        self.residual_bias = zeros(dims.width)
        """[layers, width]: sum of the biases of W_o and W_2."""
        self.a = self.first[:, dims.inner].view(dims.layers, dims.readers, dims.rank, dims.width)
        """[layers, readers, rank, width]: a view of `first`."""
        self.b = zeros(3, dims.width, dims.heads_rank)
        """[layers, 3, width, rank]"""
        self.b_up: Tensor
        """[layers, wide, rank]: the adapter's own copy."""
        self.a_down: Tensor
        """[layers, rank, wide]: the adapter's own copy."""

    @torch.no_grad()
    def place(self, leaves: Sequence[Tensor]) -> None:
        """Copy an adapter beside the base weights.

        `leaves`: A and B of the adapted heads [n layers, ...], A_o, B_o, A_1, B_1, A_2 and B_2
        [layers, ...], without those that do not exist.
        """
        dims, given = self.dims, iter(leaves)
        if dims.heads_rank:
            self._place_heads(next(given), next(given))
        if dims.out_rank:
            self.out[:, dims.width :].copy_(next(given))
            self.down[:, :, dims.wide : dims.wide + dims.out_rank].copy_(next(given))
        if dims.up_rank:
            self.a[:, -1].copy_(next(given))
            self.b_up = next(given)
        if dims.down_rank:
            self.a_down = next(given)
            self.down[:, :, dims.wide + dims.out_rank :].copy_(next(given))
        self.first[:, dims.d_inner].copy_(self.first[:, dims.inner])

    def _place_heads(self, a: Tensor, b: Tensor) -> None:
        dims = self.dims
        heads = dims.adapted_heads
        some = self.a[:, :3][:, heads]
        some.copy_(a.view_as(some))
        b = b.view(dims.layers, -1, dims.width, dims.rank)
        if b.shape[1] == 3:
            self.b = b  # nothing to add, so no copy
        else:
            self.b[:, heads].copy_(b)


@dataclass(frozen=True)
class Calls:
    """Numbers of the calls of dropout, int32; each LoRA layer has its own, in the model's order."""

    narrow: Tensor
    """[layers * inputs]: of the adapters on values as wide as the layers."""
    wide: Tensor
    """[layers]: of the adapter on the MLP's second product."""


def calls_of(dims: LayerDims, device: torch.device) -> Calls:
    """The calls of all layers. A head without an adapter has some other's: it reads nothing."""
    inputs = [part for part in HEADS if dims.heads_rank]
    inputs += [part for part in ("up", "out") if part in dims.parts]
    place = {part: number for number, part in enumerate(dims.parts)}

    def numbers(parts: Sequence[str]) -> Tensor:
        step = range(0, dims.layers * len(dims.parts), len(dims.parts))
        listed = [first + place.get(part, 0) for first in step for part in parts]
        return torch.tensor(listed, device=device, dtype=torch.int32)

    return Calls(numbers(inputs), numbers(["down"]))


class Workspace:
    """Buffers for the layers' values: one per layer if a backward pass follows, else only one."""

    def __init__(
        self,
        dims: LayerDims,
        x: Tensor,
        keep: bool,
        dropout: float,
        row_masks: RowMasks | None = None,
        calls: Calls | None = None,
    ) -> None:
        """`row_masks`: where dropout goes by row; `calls` are its calls for the layers here."""
        kept, tokens = dims.layers if keep else 1, len(x)
        self.keep, self.dropout, self.scale = keep, dropout, 1 / (1 - dropout)
        self.x = x.new_empty(kept, tokens, dims.width)
        self.normed = torch.empty_like(self.x)
        self.out = torch.empty_like(self.x)
        """Output of the attention block, [layers or 1, tokens, width]."""
        self.stats = x.new_empty(kept, tokens, 2, dtype=torch.float32)
        self.y = x.new_empty(kept, tokens, dims.y_width)
        self.both = x.new_empty(kept, tokens, dims.width + dims.out_rank)
        """z beside the product with A_o."""
        # the activation is the largest value of all, and only A_2's gradient needs it again
        activations = kept if dims.down_rank else 1
        self.wide = x.new_empty(activations, tokens, dims.wide + dims.beside)
        self.attended: list[attention.AttentionResult] = []
        """Result of attention for each layer, if a backward pass follows."""
        self.last: Tail | None = None
        """Of the last layer, for the rows' last tokens."""
        self.last_for_down: Tensor | None = None
        """What A_2 reads there."""
        if dropout:
            self._draw(dims, x, row_masks, calls)

    def _draw(
        self, dims: LayerDims, x: Tensor, row_masks: RowMasks | None, calls: Calls | None
    ) -> None:
        """Draw the masks of all layers; what each adapter reads has a mask of its own."""
        inputs = dims.readers + bool(dims.out_rank)

        def drawn(values: Tensor, numbers: Tensor | None, each: int) -> Tensor:
            if row_masks and numbers is not None:
                masks = row_masks.masks(values, numbers, self.dropout)
                return masks.view(-1, each, *values.shape)
            return mask(values, self.dropout, dims.layers, each, dtype=torch.uint8)

        if inputs:
            self.masks = drawn(x, calls.narrow if calls else None, inputs)
            """[layers, inputs, tokens, width]: of the readers of the normalised input, and `out`"""
            self.dropped = x.new_empty(len(self.x), inputs, *x.shape)
        if dims.down_rank:
            wide = self.wide[0, :, : dims.wide]
            self.wide_masks = drawn(wide, calls.wide if calls else None, 1)[:, 0]
            """[layers, tokens, wide]"""
            self.wide_dropped = x.new_empty(len(self.x), *wide.shape)

    def for_down(self, number: int, activation: Tensor, rows: Tensor | None) -> Tensor:
        """What A_2 reads: the layer's activation [tokens, wide], after dropout if there is any.

        `rows`: the tokens in question, or None for all.
        """
        if not self.dropout:
            return activation
        kept = self.kept_for_down(number, rows)
        if rows is None:
            dropped = self.wide_dropped[number if self.keep else 0]
        else:
            dropped = activation.new_empty(activation.shape)
        kernels.drop_rows(activation, kept, self.scale, dropped)
        return dropped

    def kept_for_down(self, number: int, rows: Tensor | None) -> Tensor:
        """Mask of what A_2 reads."""
        return self.wide_masks[number] if rows is None else self.wide_masks[number, rows]


@dataclass(frozen=True)
class Tail:
    """Values of a layer after its attention, for all tokens or for some of them, its rows."""

    attended: Tensor
    """[rows, width]: output of the attention."""
    for_out: Tensor
    """[rows, width]: input of A_o."""
    up: Tensor
    """[rows, wide]"""
    up_inner: Tensor
    """[rows, rank or 0]: input of B_1."""
    both: Tensor
    """[rows, width + out_rank]: what the layer adds to its input, and the input of B_o."""
    wide: Tensor
    """[rows, wide + beside]: the activation, and the inputs of B_o and B_2."""
    tokens: Tensor | None = None
    """[rows]: the tokens in question, or None for all."""


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
    dims = weights.dims
    ws.x[0].copy_(x)
    for number in range(dims.layers):
        at, before = (number, max(number - 1, 0)) if ws.keep else (0, 0)
        normed, y = ws.normed[at], ws.y[at]
        z = ws.both[before, :, : dims.width] if number else None
        norm, bias = norms[number], weights.residual_bias[max(number - 1, 0)]
        to = (ws.x[at], normed, ws.stats[at])
        kernels.residual_norm(ws.x[before], z, bias, norm.weight, norm.bias, norm.eps, *to)
        is_last = number == dims.layers - 1
        # with dropout, the adapters do not read these inputs
        begin = 0 if adapted and not ws.dropout else dims.heads.start
        needed = slice(begin, dims.heads.stop if is_last else dims.up.stop)
        torch.mm(normed, weights.first[number, needed].t(), out=y[:, needed])
        if ws.dropout and dims.readers:
            _drop_input(weights, number, normed, y, ws, at)
        b = weights.b[number] if adapted and dims.heads_rank else None
        heads, inner = y[:, dims.heads], y[:, dims.heads_inner]
        bias, out = weights.heads_bias[number], ws.out[at]
        attended = attention.forward(heads, inner, b, bias, pack, ws.keep, out)
        if ws.keep:
            ws.attended.append(attended)
        given = attended.out
        if ws.dropout and dims.out_rank:
            kernels.drop(given, ws.masks[number, -1:], ws.scale, ws.dropped[at, -1:])
            given = ws.dropped[at, -1]
        if is_last:
            break
        parts = (y[:, dims.up], y[:, dims.up_inner], ws.both[at])
        tail = Tail(attended.out, given, *parts, ws.wide[at if dims.down_rank else 0])
        _output(weights, number, tail, ws, adapted)
    return _last(weights, attended.out, given, pack.last, ws, adapted)


def _drop_input(
    weights: Weights, number: int, normed: Tensor, y: Tensor, ws: Workspace, at: int
) -> None:
    """Compute `inner` with dropout; each of its readers has a mask of its own."""
    dims = weights.dims
    readers = slice(dims.readers)
    kernels.drop(normed, ws.masks[number, readers], ws.scale, ws.dropped[at, readers])
    inner = y[:, dims.inner].view(len(y), dims.readers, dims.rank).transpose(0, 1)
    torch.bmm(ws.dropped[at, readers], weights.a[number].transpose(1, 2), out=inner)


def _last(
    weights: Weights, attended: Tensor, given: Tensor, rows: Tensor, ws: Workspace, adapted: bool
) -> Tensor:
    """Hidden states after the last layer at these tokens, from the output of its attention.

    `given`: what A_o reads of that.
    """
    dims, number = weights.dims, weights.dims.layers - 1
    at = number if ws.keep else 0
    up = ws.normed[at][rows] @ weights.first[number, dims.up].t()
    at_rows = attended[rows]
    for_out = at_rows if given is attended else given[rows]
    both, wide = ws.both[at, : len(rows)], up.new_empty(len(rows), dims.wide + dims.beside)
    ws.last = Tail(at_rows, for_out, up, ws.y[at][rows, dims.up_inner], both, wide, rows)
    ws.last_for_down = _output(weights, number, ws.last, ws, adapted)
    return ws.x[-1][rows] + both[:, : dims.width] + weights.residual_bias[-1]


def _output(
    weights: Weights, number: int, tail: Tail, ws: Workspace, adapted: bool
) -> Tensor | None:
    """Write what the layer adds to its input to `tail.both`.

    Returns the input of A_2 [rows, wide], if there is one.
    """
    dims, up, wide, for_down = weights.dims, tail.up, tail.wide, None
    rank = dims.out_rank if adapted else 0
    columns, both = dims.wide + rank, tail.both[:, : dims.width + rank]
    z, beside = both[:, : dims.width], both[:, dims.width :]
    w_o, a_o = weights.out[number, : dims.width], weights.out[number, dims.width :]
    if rank and tail.for_out is not tail.attended:
        torch.mm(tail.attended, w_o.t(), out=z)
        torch.mm(tail.for_out, a_o.t(), out=beside)
    else:
        torch.mm(tail.attended, weights.out[number, : dims.width + rank].t(), out=both)
    if adapted and dims.up_rank:
        up.addmm_(tail.up_inner, weights.b_up[number].t())
    kernels.bias_gelu(up, weights.up_bias[number], beside, wide[:, :columns])
    if adapted and dims.down_rank:
        for_down = ws.for_down(number, wide[:, : dims.wide], tail.tokens)
        torch.mm(for_down, weights.a_down[number].t(), out=wide[:, columns:])
        columns = dims.wide + dims.beside
    z.addmm_(wide[:, :columns], weights.down[number, :, :columns].t())
    return for_down


def backward(
    weights: Weights, norms: Sequence[nn.LayerNorm], grad: Tensor, pack: PackLayout, ws: Workspace
) -> list[Tensor]:
    """Gradients of the adapter from the output's gradient [rows, width].

    They are in the order and shapes of `Weights.place`. This overwrites what `forward` kept in
    `ws`.
    """
    dims, tokens, last = weights.dims, len(ws.x[0]), ws.last
    assert last
    # the gradients of z, beside the gradients of the inputs of B_o and B_2
    residuals = grad.new_empty(dims.layers - 1, tokens, dims.width + dims.beside)
    at_last = grad.new_empty(len(grad), dims.width + dims.beside)
    at_last[:, : dims.width].copy_(grad)
    d_wide = grad.new_empty(tokens, dims.wide + dims.beside)

    def spread(of_rows: Tensor) -> Tensor:
        return of_rows.new_zeros(tokens, dims.width).index_add_(0, pack.last, of_rows)

    for number in reversed(range(dims.layers)):
        y, is_last = ws.y[number], number == dims.layers - 1
        both, up = (at_last, last.up) if is_last else (residuals[number], y[:, dims.up])
        rows = pack.last if is_last else None
        _through_down(weights, both, up, d_wide[: len(both)], ws, number, rows)
        d_z, d_attended = both[:, : dims.width], _through_out(weights, both, ws, number, rows)
        if is_last:
            d_z, d_attended = spread(d_z), spread(d_attended)
        attention.backward(ws.attended[number], d_attended, y[:, dims.heads], pack)
        _inner_gradients(weights, y, up, number, rows)
        if number == 0:
            break
        d_normed = _through_first(weights, y, ws, number, pack.last)
        x, stats, into = ws.x[number], ws.stats[number], residuals[number - 1, :, : dims.width]
        kernels.norm_backward(x, stats, norms[number].weight, d_normed, d_z, into)
    return list(_gradients(dims, ws, residuals, at_last))


def _through_down(
    weights: Weights,
    both: Tensor,
    up: Tensor,
    d_wide: Tensor,
    ws: Workspace,
    number: int,
    rows: Tensor | None,
) -> None:
    """Replace `up` by its gradient, and write those of the inputs of B_o and B_2 beside z's.

    both: [rows, width + beside], which has z's gradient. d_wide: a buffer [rows, wide + beside].
    """
    dims, down = weights.dims, weights.down[number]
    d_z, beside = both[:, : dims.width], both[:, dims.width :]
    if number == 0 and not dims.up_rank:  # nothing before this is trained
        if dims.beside:
            torch.mm(d_z, down[:, dims.wide :], out=beside)
        return
    torch.mm(d_z, down, out=d_wide)
    if dims.down_rank:
        into, d_inner = d_wide[:, : dims.wide], d_wide[:, dims.wide + dims.out_rank :]
        if ws.dropout:
            kept, a = ws.kept_for_down(number, rows), weights.a_down[number]
            low_rank.add(into, d_inner, a.unsqueeze(0), kept.unsqueeze(0), ws.scale)
        else:
            into.addmm_(d_inner, weights.a_down[number])
    kernels.gelu_backward(up, weights.up_bias[number], d_wide, beside)


def _through_out(
    weights: Weights, both: Tensor, ws: Workspace, number: int, rows: Tensor | None
) -> Tensor:
    """Gradient of the attention's output from `both`, the gradients of z and of attended A_o'.

    `rows`: the tokens in question, or None for all.
    """
    dims, out = weights.dims, weights.out[number]
    both = both[:, : dims.width + dims.out_rank]
    if not ws.dropout or not dims.out_rank:
        return both @ out
    mask = ws.masks[number, -1:] if rows is None else ws.masks[number, -1:, rows]
    grad = both[:, : dims.width] @ out[: dims.width]
    low_rank.add(grad, both[:, dims.width :], out[dims.width :].unsqueeze(0), mask, ws.scale)
    return grad


def _inner_gradients(
    weights: Weights, y: Tensor, d_up: Tensor, number: int, rows: Tensor | None
) -> None:
    """Write the gradients of `inner` to y, from those of the heads, in y, and of `up`.

    `rows`: the tokens that `d_up` is for, or None for all.
    """
    dims, tokens = weights.dims, len(y)
    if dims.heads_rank:
        each = y[:, dims.heads].view(tokens, 3, dims.width).transpose(0, 1)
        d_inner = y[:, dims.d_heads_inner].view(tokens, 3, dims.rank).transpose(0, 1)
        torch.bmm(each, weights.b[number], out=d_inner)
    if dims.up_rank:
        into, b_up = y[:, dims.d_up_inner], weights.b_up[number]
        if rows is None:
            torch.mm(d_up, b_up, out=into)
        else:
            into.zero_().index_add_(0, rows, d_up @ b_up)


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
    if not dims.readers:
        return d_normed
    if ws.dropout:
        kept = ws.masks[number, : dims.readers]
        low_rank.add(d_normed, y[:, dims.d_inner], weights.a[number], kept, ws.scale)
    elif is_last:
        d_normed.addmm_(y[:, dims.d_inner], first[dims.d_inner])
    return d_normed


def _gradients(
    dims: LayerDims, ws: Workspace, residuals: Tensor, at_last: Tensor
) -> Iterator[Tensor]:
    """Gradients of all layers at once: layer by layer, the products would be small.

    Of the last layer, values are in `ws.last` and `at_last` for the rows' last tokens.
    """
    last = ws.last
    assert last
    d_z, d_z_last = residuals[:, :, : dims.width], at_last[:, : dims.width]
    if dims.heads_rank:
        yield from _heads_gradients(dims, ws)
    if dims.out_rank:
        of_b = slice(dims.width, dims.width + dims.out_rank)
        given = ws.dropped[:-1, -1] if ws.dropout else ws.out[:-1]
        yield _products(residuals[:, :, of_b], given, at_last[:, of_b], last.for_out)
        yield _products(d_z, ws.both[:-1, :, of_b], d_z_last, last.both[:, of_b])
    if dims.up_rank:
        given = ws.dropped[:, dims.readers - 1] if ws.dropout else ws.normed
        yield torch.bmm(ws.y[:, :, dims.d_up_inner].transpose(1, 2), given)
        of_up, inner_up = ws.y[:-1, :, dims.up], ws.y[:-1, :, dims.up_inner]
        yield _products(of_up, inner_up, last.up, last.up_inner)
    if dims.down_rank:
        assert ws.last_for_down is not None
        of_b, inner_of = slice(dims.width + dims.out_rank, None), slice(-dims.down_rank, None)
        given = ws.wide_dropped[:-1] if ws.dropout else ws.wide[:-1, :, : dims.wide]
        yield _products(residuals[:, :, of_b], given, at_last[:, of_b], ws.last_for_down)
        yield _products(d_z, ws.wide[:-1, :, inner_of], d_z_last, last.wide[:, inner_of])


def _heads_gradients(dims: LayerDims, ws: Workspace) -> tuple[Tensor, Tensor]:
    """Gradients of A and B of the adapted heads."""
    y, rank, width = ws.y, dims.rank, dims.width
    numbers = range(3)[dims.adapted_heads]
    d_a = y.new_empty(dims.layers, len(numbers), rank, width)
    d_b = y.new_empty(dims.layers, len(numbers), width, rank)
    of_heads, inner, d_inner = y[:, :, dims.heads], y[:, :, dims.inner], y[:, :, dims.d_inner]
    for place, number in enumerate(numbers):
        ranks = slice(number * rank, (number + 1) * rank)
        columns = slice(number * width, (number + 1) * width)
        given = ws.dropped[:, number] if ws.dropout else ws.normed
        torch.bmm(d_inner[:, :, ranks].transpose(1, 2), given, out=d_a[:, place])
        torch.bmm(of_heads[:, :, columns].transpose(1, 2), inner[:, :, ranks], out=d_b[:, place])
    return d_a.flatten(0, 1), d_b.flatten(0, 1)


def _products(left: Tensor, right: Tensor, last_left: Tensor, last_right: Tensor) -> Tensor:
    """left' right of each layer [layers - 1, tokens, ...], then of the last [rows, ...]."""
    out = left.new_empty(len(left) + 1, left.shape[2], right.shape[2])
    torch.bmm(left.transpose(1, 2), right, out=out[:-1])
    torch.mm(last_left.t(), last_right, out=out[-1])
    return out


def product_seconds(weights: Weights, tokens: int) -> float:
    """Seconds for the forward and backward products of a layer with a pack of this size."""
    dims, layers = weights.dims, timed_layers(tokens, weights.dims.layers)
    values = torch.linspace(-1, 1, tokens * dims.width, device=weights.out.device)
    x = values.view(tokens, dims.width).to(weights.out.dtype)
    y, wide = x.new_empty(tokens, dims.y_width), x.new_zeros(tokens, dims.wide + dims.beside)
    both, through = x.new_empty(tokens, dims.width + dims.out_rank), torch.empty_like(x)

    middle = slice(dims.heads.start, dims.up.stop)

    def work() -> None:
        for number in range(layers):
            first, out, down = weights.first[number], weights.out[number], weights.down[number]
            torch.mm(x, first[: dims.up.stop].t(), out=y[:, : dims.up.stop])
            torch.mm(x, out.t(), out=both)
            both[:, : dims.width].addmm_(wide, down.t())
            torch.mm(x, down, out=wide)
            torch.mm(both, out, out=through)
            torch.mm(y[:, middle], first[middle], out=through)

    return seconds(work, x.device) / layers
