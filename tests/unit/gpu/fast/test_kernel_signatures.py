"""Kernel parameters are read from the source, and launches are checked against them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from nlijob.gpu.fast import fused_attention, gated_kernels, kernels, low_rank, row_dropout
from nlijob.gpu.fast.cuda import Parameter, Source, signatures
from nlijob.gpu.fast.fused_attention import HeadAdapters, PackLayout
from nlijob.gpu.fast.gated_kernels import HeadNorms, Heads
from tests.cuda_on_cpu.emulation import on_gpu

KERNEL = """
// extern "C" __global__ void of_a_comment(T* x) {
extern "C" __global__ void __launch_bounds__(1024)
    add(T* into, const T* x, long stride,  // elements
        const float* scale, const int *bounds, const unsigned char* kept, float by, int width) {
"""


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of launched kernels. Arguments are checked, but nothing runs."""
    names: list[str] = []

    def launch(self: Source, name: str, blocks: Any, threads: int, *given: Any, **_: Any) -> None:
        self.check(name, given)
        names.append(name)

    monkeypatch.setattr(Source, "launch", launch)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(fused_attention, "_max_shared_bytes", lambda _: 99 * 1024)
    yield names
    assert names


def new(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return on_gpu(torch.zeros(shape, dtype=dtype))


def test_parameters_are_read_from_the_source() -> None:
    assert signatures(KERNEL) == {
        "add": (
            Parameter("into", "T", True),
            Parameter("x", "T", True),
            Parameter("stride", "long", False),
            Parameter("scale", "float", True),
            Parameter("bounds", "int", True),
            Parameter("kept", "unsigned char", True),
            Parameter("by", "float", False),
            Parameter("width", "int", False),
        )
    }


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('extern "C" __global__ void f(T* x, double y) {', "f: the type of 'double y' is unknown"),
        ('extern "C" __global__ void f(T* x, const T y) {', "the type of 'const T y' is unknown"),
        ('extern "C" __global__ void f(T** x) {', r"the type of 'T\*\* x' is unknown"),
        ('extern "C" __global__ void f() {', "the type of '' is unknown"),
        ("template <int N> __global__ void f(T* x) {", "only the signatures of no kernel"),
        (KERNEL + "__global__ void g(T* x) {", "only the signatures of add"),
    ],
)
def test_a_signature_that_cannot_be_read_is_an_error(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        signatures(text)


GIVEN = [new(4, 8), new(1, 4, 8, dtype=torch.uint8), 1.25, new(1, 4, 8), 32, 1]
"""Arguments of the kernel `drop`."""


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (0, 5, "drop takes a tensor first"),
        (1, new(1, 4, 8), r"unsigned char \* kept: torch.bfloat16"),
        (2, "1.25", "float scale: '1.25'"),
        (2, True, "float scale: True"),
        (3, new(1, 4, 8, dtype=torch.float32), r"T \* out: torch.float32"),
        (3, torch.zeros(1, 4, 8, dtype=torch.bfloat16, device="meta"), "out: .* on meta"),
        (4, 32.0, "long size: 32.0"),
        (4, new(1), "long size: torch.bfloat16"),
        (5, None, "int n: None"),
        (5, 1 << 31, "int n: 2147483648"),
    ],
)
def test_an_argument_of_another_type_is_refused(place: int, value: Any, fault: str) -> None:
    given = list(GIVEN)
    kernels.SOURCE.check("drop", given)
    given[place] = value
    with pytest.raises(TypeError, match=fault):
        kernels.SOURCE.check("drop", given)


@pytest.mark.parametrize("given", [GIVEN[:-1], [*GIVEN, 1]])
def test_another_number_of_arguments_is_refused(given: list[Any]) -> None:
    with pytest.raises(TypeError, match=f"drop takes 6 arguments, and {len(given)} are given"):
        kernels.SOURCE.check("drop", given)


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_function_launches_its_kernel_with_what_it_declares(
    launched: list[str], dtype: torch.dtype, adds: bool
) -> None:
    def some(*shape: int) -> Tensor:
        return new(*shape, dtype=dtype)

    x, wide, row, stats = some(4, 16), some(4, 48), some(16), new(4, 2, dtype=torch.float32)
    kernels.residual_norm(x, x if adds else None, row, row, row, 1e-5, x, x, stats)
    kernels.norm_backward(x, stats, row, x, x, x)
    kernels.bias_rotate(wide, some(48), some(4, 4), some(4, 4), 8)
    kernels.rotate_back([some(4, 2, 8)] * 3, some(4, 4), some(4, 4), wide, 8)
    kernels.bias_gelu(x, row, some(4, 8), some(4, 24))
    kernels.gelu_backward(x, row, some(4, 24), some(4, 8))
    kept = new(3, 4, 16, dtype=torch.uint8)
    kernels.drop(x, kept, 1.25, some(3, 4, 16))
    kernels.add_kept(x, some(3, 4, 16), kept, 1.25)
    kernels.drop_rows(wide[:, :16], kept[0], 1.25, x)
    assert launched == list(kernels.SOURCE.parameters)


def test_dropout_by_row_launches_its_kernel_with_what_it_declares(launched: list[str]) -> None:
    places = new(4, dtype=torch.int32)
    given = (new(0), places, places, places[:3], places[0])
    kept = row_dropout.keep_by_row(*given, 3, 16, 500)
    assert kept.shape == (3, 4, 16)
    assert launched == list(row_dropout.SOURCE.parameters)


@pytest.mark.parametrize("shared", [0, 2])
@pytest.mark.parametrize("rank", [0, 16])
def test_attention_launches_its_kernels_with_what_they_declare(
    launched: list[str], rank: int, shared: int
) -> None:
    bounds = new(3, dtype=torch.int32)
    pack = PackLayout(new(8, 8), new(8, 8), bounds, 6, 16, 0.25, bounds, shared)
    y, b = new(8, 96), new(3, 32, rank) if rank else None
    attended = fused_attention.forward(y, new(8, 3 * rank), b, new(96), pack, True, new(8, 32))
    fused_attention.backward(attended, new(8, 32), y, pack)
    fused_attention.forward(y, new(8, 3 * rank), b, new(96), pack, False, new(8, 32))
    back = ["attend_backward", *["prefix_gradients"] * bool(shared)]
    assert launched == ["attend", *back, "attend"]


@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_functions_of_gated_layers_launch_their_kernels_with_what_they_declare(
    launched: list[str], dtype: torch.dtype, adds: bool
) -> None:
    def some(*shape: int) -> Tensor:
        return new(*shape, dtype=dtype)

    x, row, scale = some(4, 16), some(16), new(4, dtype=torch.float32)
    more = row if adds else None
    gated_kernels.residual_rms(x, x if adds else None, more, row, 1e-5, x, x, scale)
    gated_kernels.rms_backward(x, scale, row, x, x, x)
    heads, norms = Heads(4, 2, 16), HeadNorms(row, row, 1e-6) if adds else None
    y, bias, angle = some(4, 128), some(128) if adds else None, some(4, 8)
    gated_kernels.complete_heads(y, bias, norms, angle, angle, heads, y)
    d_own, bounds = new(4, 128, dtype=torch.float32), new(3, dtype=torch.int32)
    d_prefix = new(2, 3, 128, dtype=torch.float32) if adds else None
    sums = (y, d_own, d_prefix, bounds)
    gated_kernels.head_gradients(*sums, bias, norms, angle, angle, heads, y)
    assert launched == list(gated_kernels.SOURCE.parameters)
    launched.clear()
    gated_kernels.rms(y[:, :16], more, row, 1e-5, x, scale)
    gated_kernels.rms_gradient(y[:, :16], more, scale, row, x)
    assert launched == list(gated_kernels.NORMS_SOURCE.parameters)
    launched.clear()
    for activation in (gated_kernels.SWIGLU, gated_kernels.GEGLU):
        activation.forward(some(4, 32), x)
        activation.backward(some(4, 32), x)
    assert launched == list(gated_kernels.MLP_SOURCE.parameters) * 2


def test_adapters_launch_their_kernel_with_what_it_declares(launched: list[str]) -> None:
    kept = new(2, 4, 24, dtype=torch.uint8)
    low_rank.add(new(4, 40)[:, :24], new(4, 32), new(2, 16, 24), kept, 1.25)
    assert launched == list(low_rank.SOURCE.parameters)


@pytest.mark.parametrize("shared", [0, 2])
def test_attention_of_final_heads_launches_its_kernels_with_what_they_declare(
    launched: list[str], shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_attention, "_is_supported", lambda *_: True)
    bounds, heads = new(3, dtype=torch.int32), Heads(4, 2, 16)
    pack = PackLayout(new(8, 8), new(8, 8), bounds, 6, 16, 0.25, bounds, shared)
    y = new(8, 128)
    attended = fused_attention.attend_heads(y, heads, pack, True, new(8, 64))
    grad = new(8, 80)[:, :64]
    fused_attention.heads_backward(attended, grad, y, heads, pack, None, None, y)
    assert launched == ["attend", "attend_backward", "head_gradients"]


@pytest.mark.parametrize("normed", [True, False])
def test_heads_with_adapters_launch_their_kernel_with_what_it_declares(
    launched: list[str], normed: bool
) -> None:
    y, heads, angle = new(8, 160), Heads(4, 2, 16), new(8, 8)
    adapters = HeadAdapters(16, new(128, 32), (0, -1, 16))
    norms = HeadNorms(new(16), new(16), 1e-6) if normed else None
    bias = new(128) if normed else None
    fused_attention.finish_heads(y, adapters, bias, norms, angle, angle, heads, new(8, 128))
    assert launched == list(fused_attention.HEADS_SOURCE.parameters)
