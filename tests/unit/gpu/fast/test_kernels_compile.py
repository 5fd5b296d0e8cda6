"""All kernels compile for every element type and GPU that they support; this needs no GPU."""

from __future__ import annotations

import pytest
import torch

from nlijob.gpu.fast import fused_attention, gated_kernels, kernels, low_rank, row_dropout
from nlijob.gpu.fast.cuda import DTYPES, Capability
from nlijob.gpu.fast.errors import Unsupported

nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="needs cuda-bindings")
try:
    nvrtc.nvrtcVersion()
except RuntimeError as error:
    pytest.skip(f"needs nvidia-cuda-nvrtc: {error}", allow_module_level=True)

SOME = [(7, 5), (9, 0)]
"""The oldest, and that of an H100."""
OTHERS = [(8, 0), (8, 6), (8, 9), (10, 0)]
PHI_2 = {"HEAD": 80, "HALF": 16, "RANK": 32, "GROUP": 1, "FINAL": 0}
NO_ADAPTER = {"HEAD": 16, "HALF": 8, "RANK": 0, "GROUP": 1, "FINAL": 0}
FINAL = {"HEAD": 16, "HALF": 8, "RANK": 0, "GROUP": 3, "FINAL": 1}
"""A small variant, which compiles in half the time."""
ELF = b"\x7fELF"

capabilities = pytest.mark.parametrize(
    "capability", [*SOME, *(pytest.param(one, marks=pytest.mark.slow) for one in OTHERS)], ids=str
)


def attention(capability: Capability, dtype: torch.dtype, sizes: dict[str, int]) -> bytes:
    threads = fused_attention.WARP * fused_attention.MAX_WARPS
    return fused_attention.SOURCE.cubin(capability, dtype, **sizes, MAX_THREADS=threads)


def names_in(cubin: bytes, names: list[str]) -> bool:
    return cubin.startswith(ELF) and all(name.encode() in cubin for name in names)


@capabilities
def test_elementwise_kernels_compile_except_bfloat16_on_gpus_without_it(
    capability: Capability,
) -> None:
    for dtype in DTYPES:
        if dtype is torch.bfloat16 and capability < (8, 0):
            with pytest.raises(Unsupported, match=r"bf16.* requires \.target sm_80 or higher"):
                kernels.SOURCE.cubin(capability, dtype)
        else:
            cubin = kernels.SOURCE.cubin(capability, dtype)
            assert names_in(cubin, list(kernels.SOURCE.parameters))


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((9, 0), torch.bfloat16),
        pytest.param((7, 5), torch.float16, marks=pytest.mark.slow),
        pytest.param((8, 0), torch.float32, marks=pytest.mark.slow),
        pytest.param((8, 6), torch.bfloat16, marks=pytest.mark.slow),
        pytest.param((8, 9), torch.float16, marks=pytest.mark.slow),
        pytest.param((10, 0), torch.float32, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_kernels_of_gated_layers_compile(capability: Capability, dtype: torch.dtype) -> None:
    for source, defined in (
        (gated_kernels.SOURCE, {}),
        (gated_kernels.NORMS_SOURCE, {}),
        (gated_kernels.MLP_SOURCE, {"GELU": 0}),
        (gated_kernels.MLP_SOURCE, {"GELU": 1}),
    ):
        cubin = source.cubin(capability, dtype, **defined)
        assert names_in(cubin, list(source.parameters))


@capabilities
def test_dropout_by_row_compiles_for_all_types_and_gpus(capability: Capability) -> None:
    for dtype in DTYPES:
        cubin = row_dropout.SOURCE.cubin(capability, dtype)
        assert names_in(cubin, list(row_dropout.SOURCE.parameters))


@capabilities
def test_attention_compiles_for_16_bit_types_on_the_gpus_that_use_it(
    capability: Capability,
) -> None:
    names = list(fused_attention.SOURCE.parameters)
    if capability < fused_attention.MIN_CAPABILITY:
        with pytest.raises(Unsupported, match=r"requires \.target sm_80 or higher"):
            attention(capability, torch.float16, NO_ADAPTER)
        return
    types = [*fused_attention.KERNEL_DTYPES, torch.bfloat16]
    for dtype, sizes in zip(types, (PHI_2, NO_ADAPTER, FINAL), strict=True):
        assert names_in(attention(capability, dtype, sizes), names)
    source = fused_attention.HEADS_SOURCE
    cubin = source.cubin(capability, torch.float16, HEAD=32, HALF=8, RANK=16)
    assert names_in(cubin, list(source.parameters))
    cubin = low_rank.SOURCE.cubin(capability, torch.bfloat16, RANK=32)
    assert names_in(cubin, list(low_rank.SOURCE.parameters))


def test_a_source_that_does_not_compile_is_refused_with_the_compilers_message() -> None:
    with pytest.raises(Unsupported, match='identifier "HEAD" is undefined'):
        fused_attention.SOURCE.cubin((9, 0), torch.bfloat16)
