"""What phi's layers pass to kernels, which read 16 bytes at once, and rows as far apart as told.

No kernel runs, so that values mean nothing here; tests/gpu compares them.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nlijob.gpu.fast import fused_attention, kernels
from nlijob.gpu.fast.cuda import Source
from nlijob.gpu.fast.fused_attention import PackLayout
from nlijob.gpu.fast.row_dropout import RowMasks
from nlijob.gpu.fast.stacks import parallel
from nlijob.gpu.fast.stacks.parallel import LayerDims, Weights, Workspace
from tests.cuda_on_cpu.emulation import on_gpu

CPU, DTYPE = torch.device("cpu"), torch.bfloat16
LAYERS, WIDTH, WIDE, RANK, TOKENS = 3, 64, 128, 16, 48
PARTS = [
    parallel.PARTS,
    ("query", "value", "up", "down"),
    ("query", "key", "value", "out"),
    ("up",),
    ("key", "down"),
    ("out", "down"),
]


def new(*shape: int) -> Tensor:
    return on_gpu(torch.randn(shape).to(DTYPE))


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of launched kernels; what they are given is checked."""
    names: set[str] = set()

    def launch(self: Source, name: str, blocks: Any, threads: int, *given: Any, **_: Any) -> None:
        self.check(name, given)
        names.add(name)
        following = [*(parameter.name for parameter in self.parameters[name][1:]), ""]
        for parameter, value, after in zip(self.parameters[name], given, following, strict=True):
            where = f"{name}: {parameter.name}"
            # in attention.cu, values may lie in the rows of others
            has_stride = after.endswith("stride") or self is not kernels.SOURCE
            if parameter.name.endswith("stride"):
                assert value % 8 == 0, where
            elif isinstance(value, Tensor) and value.numel():
                assert value.stride(-1) == 1, where
                assert value.is_contiguous() or has_stride, where
                assert parameter.type != "T" or value.data_ptr() % 16 == 0, where

    monkeypatch.setattr(Source, "launch", launch)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(fused_attention, "_max_shared_bytes", lambda _: 99 * 1024)
    return names


def weights_of(dims: LayerDims) -> tuple[Weights, list[Tensor]]:
    """Weights, and an adapter in the form that they take."""
    weights = Weights(dims, CPU, DTYPE)
    for name, value in vars(weights).items():
        if isinstance(value, Tensor):
            setattr(weights, name, on_gpu(value))
    heads = len(set(parallel.HEADS) & set(dims.parts))
    shapes = {"out": (WIDTH, WIDTH), "up": (WIDTH, WIDE), "down": (WIDE, WIDTH)}
    leaves = [(heads, WIDTH, WIDTH)] * bool(heads)
    leaves += [(1, *shapes[part]) for part in ("out", "up", "down") if part in dims.parts]
    return weights, [
        leaf
        for count, read, written in leaves
        for leaf in (new(count * LAYERS, RANK, read), new(count * LAYERS, written, RANK))
    ]


def row_masks(last: Tensor) -> RowMasks:
    masks = RowMasks(CPU, DTYPE)
    masks._like, masks._key = on_gpu(masks._like), on_gpu(masks._key)
    places = on_gpu(torch.zeros(TOKENS, dtype=torch.int32))
    masks.place(places, places, last.int())
    return masks


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("parts", PARTS, ids="-".join)
def test_every_kernel_is_given_what_it_can_read(
    launched: set[str], parts: tuple[str, ...], dropout: float
) -> None:
    dims = LayerDims(LAYERS, WIDTH, WIDE, RANK, parts)
    weights, leaves = weights_of(dims)
    weights.place(leaves)
    norms = [nn.LayerNorm(WIDTH, dtype=DTYPE) for _ in range(LAYERS)]
    for norm in norms:
        norm.weight.data, norm.bias.data = new(WIDTH), new(WIDTH)
    bounds, last = (
        on_gpu(torch.tensor([0, 20, 30, TOKENS]).int()),
        on_gpu(torch.tensor([19, 29, 47])),
    )
    pack = PackLayout(new(TOKENS, 8), new(TOKENS, 8), bounds, 24, 16, 0.25, last, shared=4)
    calls = parallel.calls_of(dims, CPU)
    numbers = parallel.Calls(on_gpu(calls.narrow), on_gpu(calls.wide))
    with torch.no_grad():
        workspace = Workspace(dims, new(TOKENS, WIDTH), True, dropout, row_masks(last), numbers)
        parallel.forward(weights, norms, new(TOKENS, WIDTH), pack, workspace, True)
        gradients = parallel.backward(weights, norms, new(3, WIDTH), pack, workspace)
    assert [gradient.shape for gradient in gradients] == [leaf.shape for leaf in leaves]
    assert {"residual_norm", "attend", "bias_gelu", "gelu_backward"} <= launched
    assert ("keep_by_row" in launched) == ("add_low_rank" in launched) == bool(dropout)
    assert ("drop_rows" in launched) == (bool(dropout) and "down" in parts)
