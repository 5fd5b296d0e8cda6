"""The CUDA kernels compared with torch's operations on a CPU, for each element type."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from nlijob.gpu.fast import cuda, gated_kernels, kernels, low_rank
from nlijob.gpu.fast import fused_attention as attention
from nlijob.gpu.fast.cuda import Source
from nlijob.gpu.fast.fused_attention import HeadAdapters, PackLayout
from nlijob.gpu.fast.gated_kernels import HeadNorms, Heads
from nlijob.gpu.fast.packing import SHARED
from nlijob.gpu.fast.row_dropout import RowMasks
from tests import philox, tolerance
from tests.cuda_on_cpu.places import (
    GPU,
    PLACES,
    Place,
    folder_of_libraries,
    make_place,
    needs_gpu,
)

CPU = torch.device("cpu")
TOKENS, WIDTH, HEAD, HALF = 5, 2400, 24, 8
ROUNDING = {
    torch.float32: tolerance.rounding(torch.float32, WIDTH),
    torch.float16: tolerance.rounding(torch.float16, 4),
    torch.bfloat16: tolerance.rounding(torch.bfloat16, 4),
}
"""Sums are in float32 over as many terms as a row is wide; a narrower element type rounds what is
read and written besides, which a value is up to four times in a kernel."""


def rest(*values: Any) -> Any:
    """A case that takes too long on a CPU for every run of the tests."""
    return pytest.param(*values, marks=pytest.mark.slow)


def only_on_gpu(*values: Any) -> Any:
    """A case of attention that torch computes; on a GPU it does so in another way than on a CPU."""
    return pytest.param(*values, marks=pytest.mark.gpu)


@pytest.fixture(params=[torch.float32, torch.bfloat16, rest(torch.float16)], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    chosen: torch.dtype = request.param
    return chosen


@pytest.fixture(params=PLACES)
def place(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    folder = folder_of_libraries(tmp_path_factory.getbasetemp())
    made = make_place(request.param, monkeypatch, folder)
    yield made
    assert made.emulation is None or made.emulation.launched


def compare(place: Place, dtype: torch.dtype, work: Callable[..., None], *given: Any) -> None:
    """Run `work` with kernels and in float32 on a CPU, and compare all tensors afterwards."""
    moved = [_copy(value, dtype, place.moved) for value in given]
    wide = [_copy(value, torch.float32) for value in given]
    before = [value.clone() for value in wide if isinstance(value, Tensor)]
    work(*moved)
    work(*wide)
    after = [value for value in wide if isinstance(value, Tensor)]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    for got, expected in zip(moved, wide, strict=True):
        if isinstance(got, Tensor):
            rounding = ROUNDING[dtype]
            torch.testing.assert_close(
                plain(got).float(), expected.float(), rtol=rounding, atol=rounding
            )


Move = Callable[[Tensor], Tensor]


LONG, TOO_LONG = 190, 500
"""Tokens of a row that fits into the shared memory of a data centre's GPU, and of one that fits
into none."""


def has_kernel(dtype: torch.dtype, longest: int) -> bool:
    return dtype in attention.KERNEL_DTYPES and longest < TOO_LONG


def plain(value: Tensor) -> Tensor:
    """A tensor on the CPU, and no more than that."""
    return value.cpu().as_subclass(Tensor)


def _copy(value: Any, dtype: torch.dtype, moved: Callable[[Tensor], Tensor] = Tensor.clone) -> Any:
    """A copy with the same strides; float64 becomes float32, whatever the dtype."""
    if not isinstance(value, Tensor):
        return value
    kept = {torch.uint8: torch.uint8, torch.float64: torch.float32, torch.int32: torch.int32}
    whole = value if value._base is None else value._base
    copied = moved(whole.to(kept.get(value.dtype, dtype)))
    return copied.as_strided(value.shape, value.stride(), value.storage_offset())


@pytest.fixture
def values(dtype: torch.dtype) -> Callable[..., Tensor]:
    """Make random values of the element type; a matrix is a view of a wider one."""

    def new(*shape: int) -> Tensor:
        more = shape if len(shape) != 2 else (shape[0], shape[1] + 16)
        return torch.randn(more).to(dtype).float()[..., : shape[-1]]

    return new


Values = Callable[..., Tensor]


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("width", [8, 264, rest(WIDTH), rest(8192)])
def test_residual_norm_and_its_gradient(
    place: Place, dtype: torch.dtype, values: Values, width: int, adds: bool
) -> None:
    x = values(TOKENS, width).contiguous()
    total, normed = torch.empty_like(x).copy_(x), torch.zeros_like(x)
    stats = torch.zeros(TOKENS, 2, dtype=torch.float64)
    z = values(TOKENS, width) if adds else None
    vectors = [values(width) for _ in range(3)]
    compare(place, dtype, kernels.residual_norm, x, z, *vectors, 1e-5, total, normed, stats)
    mean, scale = x.mean(1), torch.rsqrt(x.var(1, correction=0) + 1e-5)
    stats = torch.stack([mean, scale], 1).double()
    others = [values(TOKENS, width) for _ in range(3)]
    compare(place, dtype, kernels.norm_backward, x, stats, vectors[1], *others)


def test_bias_and_rotation_and_their_gradient(
    place: Place, dtype: torch.dtype, values: Values
) -> None:
    angle = torch.randn(TOKENS, HALF)
    cosine, sine = (part.to(dtype).float() for part in (angle.cos(), angle.sin()))
    y, bias = values(TOKENS, 3 * WIDTH), values(3 * WIDTH)
    compare(place, dtype, kernels.bias_rotate, y, bias, cosine, sine, HEAD)
    grads = [values(TOKENS, WIDTH).contiguous() for _ in range(3)]

    def back(a: Tensor, b: Tensor, c: Tensor, *others: Any) -> None:
        parts = [part.view(TOKENS, WIDTH // HEAD, HEAD) for part in (a, b, c)]
        kernels.rotate_back(parts, *others)

    compare(place, dtype, back, *grads, cosine, sine, values(TOKENS, 3 * WIDTH), HEAD)


@pytest.mark.parametrize("more", [0, 16])
def test_gelu_and_its_gradient(place: Place, dtype: torch.dtype, values: Values, more: int) -> None:
    u, bias, beside = values(TOKENS, WIDTH) * 3, values(WIDTH), values(TOKENS, more)
    u = u.to(dtype).float()
    compare(place, dtype, kernels.bias_gelu, u, bias, beside, values(TOKENS, WIDTH + more))
    compare(place, dtype, kernels.gelu_backward, u, bias, values(TOKENS, WIDTH + more), beside)


def test_dropout_of_rows_that_lie_apart(place: Place, dtype: torch.dtype, values: Values) -> None:
    kept = torch.empty(TOKENS, WIDTH, dtype=torch.uint8).bernoulli_(0.7)
    x, out = values(TOKENS, WIDTH), torch.zeros(TOKENS, WIDTH)
    assert not x.is_contiguous()
    compare(place, dtype, kernels.drop_rows, x, kept, 1.25, out)


@pytest.mark.parametrize("n", [1, 3])
def test_dropout_and_its_gradient(place: Place, dtype: torch.dtype, values: Values, n: int) -> None:
    kept = torch.empty(n, TOKENS, WIDTH, dtype=torch.uint8).bernoulli_(0.7)
    x, out = values(TOKENS, WIDTH).contiguous(), torch.zeros(n, TOKENS, WIDTH)
    compare(place, dtype, kernels.drop, x, kept, 1.25, out)
    compare(
        place, dtype, kernels.add_kept, values(TOKENS, WIDTH), values(n, TOKENS, WIDTH), kept, 1.25
    )


SHAPES = [(80, 16, 0), (64, 32, 32), (80, 16, 32), (64, 32, 0)]
"""Width of a head, half of its rotated part, rank of the adapter."""
PACKS = list(
    itertools.product(
        [(3, 16, 0, 57, 1), (128, 17, 100), (100, 4), (LONG, 20), (TOO_LONG, 20)], [0, 16, 28]
    )
)
"""Lengths of rows, and of the prefix that they share."""
QUICK = [(SHAPES[1], ((3, 16, 0, 57, 1), 28)), (SHAPES[1], ((100, 4), 0))]
of_attention = pytest.mark.parametrize(
    "dtype", [torch.bfloat16, rest(torch.float16), only_on_gpu(torch.float32)], ids=str
)


@of_attention
@pytest.mark.parametrize("adapters", [1, rest(3)])
@pytest.mark.parametrize(("rank", "width"), [(16, 72), rest(32, 2400), (24, 64)])
def test_what_adapters_add_to_a_gradient(
    place: Place, dtype: torch.dtype, values: Values, adapters: int, rank: int, width: int
) -> None:
    kept = (torch.rand(adapters, TOKENS + 30, width) < 0.8).to(torch.uint8)
    into, inner = values(TOKENS + 30, width), values(TOKENS + 30, adapters * rank)
    a = values(adapters * rank, width).view(adapters, rank, width)
    a.mul_(1 / 8)
    compare(place, dtype, low_rank.add, into, inner, a, kept, 1.25)


def as_fits(shape: tuple[int, int, int], pack: tuple[tuple[int, ...], int]) -> Any:
    if TOO_LONG in pack[0]:
        return only_on_gpu(*shape, *pack)
    return (*shape, *pack) if (shape, pack) in QUICK else rest(*shape, *pack)


@of_attention
@pytest.mark.parametrize(
    ("head", "half", "rank", "lengths", "prefix"),
    [  # every pack in two shapes that differ in all, and every shape with every row length
        as_fits(shape, pack)
        for number, pack in enumerate(PACKS)
        for shape in SHAPES[2 * (number % 2) : 2 * (number % 2) + 2]
    ],
)
def test_attention_and_its_gradient(
    place: Place,
    dtype: torch.dtype,
    values: Values,
    head: int,
    half: int,
    rank: int,
    lengths: tuple[int, ...],
    prefix: int,
) -> None:
    lengths, longest = (prefix + lengths[0], *lengths[1:]), prefix + max(lengths)
    tokens, width = sum(lengths), 3 * head
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    angle = torch.randn(tokens, half)
    cosine, sine = (part.to(dtype).float() for part in (angle.cos(), angle.sin()))
    pack = PackLayout(cosine, sine, bounds, longest, head, head**-0.5, bounds[1:] - 1)
    y, b = values(tokens, 3 * (width + rank)), values(3, width, rank) / 8
    bias, grad = values(3 * width), values(tokens, width).contiguous()
    results = []
    for kind, move in ((dtype, place.moved), (torch.float32, Tensor.clone)):
        there = [_copy(tensor, kind, move) for tensor in (y, bias, grad, cosine, sine, b)]
        moved = dataclasses.replace(
            pack, cosine=there[3], sine=there[4], bounds=move(bounds), shared=prefix
        )
        adapter, out = there[5] if rank else None, torch.empty_like(there[2])
        of_heads, inner = there[0][:, 3 * rank :], there[0][:, : 3 * rank]
        with torch.no_grad():
            attended = attention.forward(of_heads, inner, adapter, there[1], moved, True, out)
            own = attended.logs is not None
            attention.backward(attended, there[2], of_heads, moved)
        assert own == (move is place.moved and has_kernel(dtype, longest))
        results.append((plain(attended.out).float(), plain(of_heads).float()))
    for got, expected in zip(*results, strict=True):
        difference = (got - expected).norm() / expected.norm()
        assert difference < ROUNDING[dtype] / 2
        torch.testing.assert_close(got, expected, rtol=0.1, atol=ROUNDING[dtype] * 4)


@pytest.mark.parametrize("width", [WIDTH, 13])
def test_masks_of_dropout_by_row_are_those_of_the_reference(place: Place, width: int) -> None:
    rows, positions, seed, step = [SHARED, 0, 0, 70_000], [0, 1, 2, 2], 42_000_127_000_003, 2**31
    found = []
    for move in (place.moved, Tensor.clone):
        masks = RowMasks(CPU, torch.bfloat16)
        masks._like, masks._key = move(masks._like), move(masks._key)
        masks.start(seed, step - 1)
        masks.next_step()
        masks.place(*(move(torch.tensor(part).int()) for part in (rows, positions, [0])))
        values = move(torch.empty(len(rows), width, dtype=torch.bfloat16))
        drawn = plain(masks.masks(values, move(torch.arange(5).int()), 0.3))
        found.append(drawn)
        kept = masks.kept(values, move(torch.tensor(3).int()), 0.3)
        assert kept is not None
        assert torch.equal(plain(kept), drawn[3].bool())
        chosen = masks.masks(values, move(torch.tensor([3, 0]).int()), 0.3)
        assert torch.equal(plain(chosen), drawn[[3, 0]])
    assert torch.equal(*found)
    expected = philox.kept(seed, step, 3, rows, positions, width, 0.3)
    assert found[0][3].tolist() == expected.tolist()


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("width", [8, 264, rest(WIDTH), rest(8192)])
def test_residual_rms_and_its_gradient(
    place: Place, dtype: torch.dtype, values: Values, width: int, adds: bool
) -> None:
    x = values(TOKENS, width).contiguous()
    total, normed = torch.empty_like(x).copy_(x), torch.zeros_like(x)
    scale = torch.zeros(TOKENS, dtype=torch.float64)
    z, bias = (values(TOKENS, width), values(width)) if adds else (None, None)
    weight = values(width)
    compare(
        place, dtype, gated_kernels.residual_rms, x, z, bias, weight, 1e-5, total, normed, scale
    )
    scale = torch.rsqrt(x.square().mean(1) + 1e-5).double()
    others = [values(TOKENS, width) for _ in range(3)]
    compare(place, dtype, gated_kernels.rms_backward, x, scale, weight, *others)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("width", [8, 264, rest(8192)])
def test_rms_of_some_columns_and_its_gradient(
    place: Place, dtype: torch.dtype, values: Values, width: int, biased: bool
) -> None:
    y, weight, bias = values(TOKENS, width), values(width), values(width) if biased else None
    scale = torch.zeros(TOKENS, dtype=torch.float64)
    out = values(TOKENS, width)
    compare(place, dtype, gated_kernels.rms, y, bias, weight, 1e-5, out, scale)
    wide = y if bias is None else y + bias
    scale = torch.rsqrt(wide.square().mean(1) + 1e-5).double()
    compare(place, dtype, gated_kernels.rms_gradient, y, bias, scale, weight, out)


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize(
    ("head", "half"), [(24, 8), rest(64, 32), rest(128, 64), (256, 64), rest(256, 128)]
)
@pytest.mark.parametrize(("queries", "keys"), [(6, 2), rest(3, 3), rest(40, 1)])
def test_heads_are_completed_and_their_gradient(
    place: Place,
    dtype: torch.dtype,
    values: Values,
    head: int,
    half: int,
    queries: int,
    keys: int,
    normed: bool,
) -> None:
    heads = Heads(queries, keys, head)
    angle = torch.randn(TOKENS, half)
    cosine, sine = (part.to(dtype).float() for part in (angle.cos(), angle.sin()))
    bias = values(heads.columns) if normed else None
    weights = [values(head), values(head)]

    def complete(y: Tensor, out: Tensor, a: Tensor, b: Tensor, *given: Any) -> None:
        norms = HeadNorms(a, b, 1e-6) if normed else None
        bias, cosine, sine = given
        to = out if normed else y
        gated_kernels.complete_heads(y, bias, norms, cosine, sine, heads, to)

    y, out = values(TOKENS, heads.columns), values(TOKENS, heads.columns)
    compare(place, dtype, complete, y, out, *weights, bias, cosine, sine)

    def back(y: Tensor, d: Tensor, a: Tensor, b: Tensor, *given: Any) -> None:
        d_own, d_prefix, bias, cosine, sine = given
        norms = HeadNorms(a, b, 1e-6) if normed else None
        bounds = torch.tensor([0, 3, 3, 5], dtype=torch.int32, device=y.device)
        sums = (d_own, d_prefix, bounds)
        gated_kernels.head_gradients(d, *sums, bias, norms, cosine, sine, heads, y)

    columns = 2 * heads.query_width
    d_own = torch.randn(TOKENS, columns, dtype=torch.float64)
    d_prefix = torch.randn(3, 2, columns, dtype=torch.float64)
    for prefix in (None, d_prefix):
        compare(place, dtype, back, y, out, *weights, d_own, prefix, bias, cosine, sine)


@pytest.mark.parametrize("name", ["swiglu", "geglu"])
def test_activation_of_a_gated_mlp_and_its_gradient(
    place: Place, dtype: torch.dtype, values: Values, name: str
) -> None:
    y = values(TOKENS, 2 * WIDTH)
    compare(place, dtype, getattr(gated_kernels, name), y, values(TOKENS, WIDTH))
    compare(place, dtype, getattr(gated_kernels, f"{name}_backward"), y, values(TOKENS, WIDTH))


@of_attention
@pytest.mark.parametrize(("queries", "keys"), [(6, 2), rest(3, 3), rest(4, 1)])
@pytest.mark.parametrize("head", [64, rest(80), rest(128)])
@pytest.mark.parametrize(
    ("lengths", "prefix"),
    [
        rest((3, 16, 0, 57, 1), 0),
        ((3, 16, 0, 57, 1), 28),
        rest((128, 17), 0),
        ((100, 4, 9), 16),
        only_on_gpu((LONG,), 0),
        only_on_gpu((TOO_LONG,), 0),
    ],
)
def test_attention_of_grouped_heads_and_its_gradient(
    place: Place,
    dtype: torch.dtype,
    values: Values,
    head: int,
    queries: int,
    keys: int,
    lengths: tuple[int, ...],
    prefix: int,
) -> None:
    lengths, longest = (prefix + lengths[0], *lengths[1:]), prefix + max(lengths)
    tokens, heads = sum(lengths), Heads(queries, keys, head)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    angle = torch.randn(tokens, 8)
    cosine, sine = (part.to(dtype).float() for part in (angle.cos(), angle.sin()))
    pack = PackLayout(cosine, sine, bounds, longest, head, head**-0.5, bounds[1:] - 1, prefix)
    y, grad = values(tokens, heads.columns), values(tokens, heads.query_width)
    results = []
    for kind, move in ((dtype, place.moved), (torch.float32, Tensor.clone)):
        there = [_copy(tensor, kind, move) for tensor in (y, grad, cosine, sine)]
        moved = dataclasses.replace(pack, cosine=there[2], sine=there[3], bounds=move(bounds))
        out = there[0].new_empty(tokens, heads.query_width)
        with torch.no_grad():
            attended = attention.attend_heads(there[0], heads, moved, True, out)
            own = attended.logs is not None
            final = there[0]
            attention.heads_backward(attended, there[1], final, heads, moved, None, None, final)
        assert own == (move is place.moved and has_kernel(dtype, longest))
        results.append((plain(out).float(), plain(final).float()))
    for got, expected in zip(*results, strict=True):
        difference = (got - expected).norm() / expected.norm()
        assert difference < ROUNDING[dtype] / 2
        torch.testing.assert_close(got, expected, rtol=0.1, atol=ROUNDING[dtype] * 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16], ids=str)
@pytest.mark.parametrize("prefix", [0, 20])
@pytest.mark.parametrize("final", [False, True])
def test_filling_is_zero_and_changes_nothing_for_rows(
    place: Place, dtype: torch.dtype, values: Values, final: bool, prefix: int
) -> None:
    lengths, heads = [prefix + 7, 19, 30, 20], Heads(2, 1 if final else 2, 64)
    tokens, rows = sum(lengths), sum(lengths[:2])
    bounds = place.moved(torch.tensor([0, *lengths, 0]).cumsum(0).int())
    angle = torch.randn(tokens, 16)
    cosine, sine = (place.moved(part.to(dtype)) for part in (angle.cos(), angle.sin()))
    pack = PackLayout(cosine, sine, bounds, prefix + 40, 64, 0.125, bounds[1:] - 1, prefix)
    y, grad = values(tokens, heads.columns), values(tokens, heads.query_width)
    grad[rows:] = 0
    bias = place.moved(values(heads.columns).to(dtype))
    results = []
    for count in (None, place.moved(torch.tensor([2]).int())):
        some = dataclasses.replace(pack, row_count=count)
        there, upstream = (_copy(part, dtype, place.moved) for part in (y, grad))
        out = torch.full_like(upstream, torch.nan)
        with torch.no_grad():
            if final:
                attended = attention.attend_heads(there, heads, some, True, out)
                attention.heads_backward(attended, upstream, there, heads, some, None, None, there)
            else:
                inner = there[:, :0]
                attended = attention.forward(there, inner, None, bias, some, True, out)
                attention.backward(attended, upstream, there, some)
        assert attended.logs is not None
        results.append((plain(out), plain(there)))
    (whole, d_whole), (out, d_out) = results
    assert torch.equal(out[:rows], whole[:rows])
    assert not out[rows:].any()
    torch.testing.assert_close(d_out, d_whole)
    assert not d_out[rows:].any()


@pytest.mark.gpu
@needs_gpu
def test_kernels_that_were_kept_on_disk_work_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Source("dropout.cu").compile(GPU, torch.float32)  # keeps them, if no test before did

    def compile_cubin(*_: Any) -> bytes:
        raise AssertionError("compiled again")

    monkeypatch.setattr(cuda, "compile_cubin", compile_cubin)
    Source("dropout.cu").compile(GPU, torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, rest(torch.float16)], ids=str)
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("rank", [16, rest(32)])
@pytest.mark.parametrize(
    ("queries", "keys", "begins"),
    [(6, 2, (0, 1, 2)), (3, 3, (0, -1, 1)), rest(4, 1, (0, 0, 0))],
)
@pytest.mark.parametrize(("head", "half"), [rest(16, 8), (80, 16), rest(128, 64)])
def test_heads_with_adapters_are_those_of_two_kernels(
    place: Place,
    dtype: torch.dtype,
    values: Values,
    head: int,
    half: int,
    queries: int,
    keys: int,
    begins: tuple[int, int, int],
    rank: int,
    normed: bool,
) -> None:
    tokens, heads = 21, Heads(queries, keys, head)
    ranks = (max(begins) + 1) * rank
    angle = torch.randn(tokens, half)
    y, b = torch.randn(tokens, heads.columns + ranks), torch.zeros(heads.columns, ranks)
    first = [0, heads.query_width, heads.query_width + heads.key_width, heads.columns]
    for part, begin in enumerate(begins):
        if begin >= 0:
            columns = slice(first[part], first[part + 1])
            b[columns, begin * rank : (begin + 1) * rank].normal_().div_(8)
    bias = torch.randn(heads.columns) if normed else None
    weights = torch.rand(2, head) + 0.5
    given = [y, b, weights, angle.cos(), angle.sin(), torch.zeros(tokens, heads.columns)]
    results = []
    for kind, move in ((dtype, place.moved), (torch.float32, Tensor.clone)):
        y, b, weights, cosine, sine, out = (_copy(value.to(dtype), kind, move) for value in given)
        norms = HeadNorms(weights[0], weights[1], 1e-6) if normed else None
        add = None if bias is None else _copy(bias.to(dtype), kind, move)
        others = (add, norms, cosine, sine, heads, out if normed else y[:, : heads.columns])
        if move is place.moved:
            starts = [begin * rank if begin >= 0 else -1 for begin in begins]
            adapters = HeadAdapters(rank, b, (starts[0], starts[1], starts[2]))
            attention.finish_heads(y, adapters, *others)
        else:
            y[:, : heads.columns].addmm_(y[:, heads.columns :], b.t())
            gated_kernels.complete_heads(y[:, : heads.columns], *others)
        results.append((plain(y)[:, : heads.query_width + heads.key_width].float(), plain(out)))
    for got, expected in zip(*results, strict=True):
        assert (got.float() - expected).norm() <= ROUNDING[dtype] / 2 * expected.norm()
