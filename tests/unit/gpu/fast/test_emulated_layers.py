"""Whole fused layers whose kernels run on the CPU, compared with torch's operations there.

The adapters are on all linear layers and have dropout by row; rows share a prefix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nlijob.config import JobConfig
from nlijob.gpu.fast import fused_attention, gated_kernels, kernels
from nlijob.gpu.fast import model as fast_model
from nlijob.gpu.fast.model import FastModel
from nlijob.gpu.fast.packing import pack_shape, view
from nlijob.gpu.fast.stacks import phi
from nlijob.gpu.heads import CausalHead, Encoded
from nlijob.gpu.model import LoadedModel
from tests import tolerance
from tests.cuda_on_cpu.emulation import emulate
from tests.cuda_on_cpu.places import folder_of_libraries, needs_compiler
from tests.gated_models import ALL_LINEAR, new_gated_model
from tests.phi_adapters import ALL

pytestmark = [pytest.mark.arithmetic, needs_compiler]

CPU, PREFIX, DROPOUT = torch.device("cpu"), 2, 0.4
OPERATIONS = 3 * (4 * 128 + 2 * 96 + 128 + 32) + 128
"""Terms of the sums on a value's way through the widest model here, as in `tests.tolerance`."""
OF_32_BITS = {"bias_rotate", "rotate_back", "complete_heads", "add_kept"}
"""Kernels that others for 16 bits include."""
ATTENTION = {"attend", "attend_backward", "add_low_rank"}
"""Kernels for 16 bits."""
PHI = {*kernels.SOURCE.parameters, "keep_by_row"}
IN_GATED = {*gated_kernels.SOURCE.parameters, *gated_kernels.MLP_SOURCE.parameters}
GATED = {*IN_GATED, "keep_by_row", "drop", "add_kept"}
NORMS = set(gated_kernels.NORMS_SOURCE.parameters)
New = Callable[[torch.dtype], LoadedModel]


@pytest.fixture
def new_phi(new_small_phi: Callable[..., LoadedModel]) -> New:
    return lambda dtype: new_small_phi(targets=ALL, dropout=DROPOUT, dtype=dtype)


@pytest.fixture
def new_gated(family: str, demo: JobConfig, tokenizer: Any) -> New:
    def new(dtype: torch.dtype) -> LoadedModel:
        given = (demo, tokenizer, family, ALL_LINEAR, CPU)
        return new_gated_model(*given, dtype=dtype, dropout=DROPOUT)

    return new


@pytest.fixture(autouse=True)
def _fuses_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phi, "fuses", lambda parts, device: True)
    monkeypatch.setattr(fast_model, "drops_by_row", lambda device: True)


def outcome(loaded: LoadedModel, head: CausalHead, rows: list[Encoded]) -> tuple[Tensor, Tensor]:
    """Logits in training, and the gradient of all adapters."""
    fast = FastModel(loaded, head, True)
    assert fast.is_fused, fast.refused
    loaded.model.train()
    fast.seed(5)
    shape = pack_shape([row.length for row in rows], PREFIX)
    packed = view(fast.to_device(rows, shape, len(rows)), shape)
    logits = fast.logits(packed, shape)
    fast.adapter.add_gradient(functional.cross_entropy(logits, packed.targets.long()))
    gradient = fast.adapter.gradient.clone()
    fast.close()
    return logits.detach(), gradient


Emulated = Callable[..., tuple[set[str], tuple[Tensor, Tensor]]]


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    """`outcome` where all tensors claim to be on a GPU, and the kernels that ran."""
    folder = folder_of_libraries(tmp_path_factory.getbasetemp())

    def run(*given: Any) -> tuple[set[str], tuple[Tensor, Tensor]]:
        with monkeypatch.context() as patch:
            emulation = emulate(patch, folder)
            patch.setattr(Tensor, "is_cuda", True, raising=False)
            found = outcome(*given)
        return set(emulation.launched), found

    return run


def check(
    new: New, head: CausalHead, rows: list[Encoded], emulated: Emulated, dtype: torch.dtype
) -> set[str]:
    """Compare with torch's operations in float32; returns the kernels that ran."""
    launched, found = emulated(new(dtype), head, rows)
    exact = outcome(new(torch.float32), head, rows)
    torchs = outcome(new(dtype), head, rows)
    for got, by_torch, expected in zip(found, torchs, exact, strict=True):
        rounding = tolerance.rounding(torch.float32, 2 * OPERATIONS)
        if dtype is not torch.float32:
            rounding = 2 * tolerance.distance(by_torch, expected)
        assert tolerance.distance(got, expected) < rounding
    return launched


dtypes = pytest.mark.parametrize(
    "dtype", [torch.bfloat16, pytest.param(torch.float32, marks=pytest.mark.slow)], ids=str
)


@dtypes
def test_phis_layers_compute_with_kernels_what_they_compute_without(
    new_phi: New, head: CausalHead, rows: list[Encoded], emulated: Emulated, dtype: torch.dtype
) -> None:
    launched = check(new_phi, head, rows[:5], emulated, dtype)
    in_attention = {*ATTENTION, "prefix_gradients"}
    is_narrow = dtype in fused_attention.KERNEL_DTYPES
    assert launched == (PHI - OF_32_BITS | in_attention if is_narrow else PHI)


@dtypes
@pytest.mark.parametrize("family", [pytest.param("Llama", marks=pytest.mark.slow), "Qwen3"])
def test_gated_layers_compute_with_kernels_what_they_compute_without(
    new_gated: New, head: CausalHead, rows: list[Encoded], emulated: Emulated, dtype: torch.dtype
) -> None:
    launched = check(new_gated, head, rows[:5], emulated, dtype)
    in_attention = {*ATTENTION, "finish_heads"}
    is_narrow = dtype in fused_attention.KERNEL_DTYPES
    assert launched == (GATED - OF_32_BITS | in_attention if is_narrow else GATED)


@dtypes
@pytest.mark.parametrize("family", ["Olmo2"])
def test_layers_with_norms_of_outputs_alone_compute_with_kernels_what_they_compute_without(
    new_gated: New, head: CausalHead, rows: list[Encoded], emulated: Emulated, dtype: torch.dtype
) -> None:
    launched = check(new_gated, head, rows[:5], emulated, dtype)
    expected = GATED - {"residual_rms", "rms_backward"} | NORMS
    is_narrow = dtype in fused_attention.KERNEL_DTYPES
    assert launched == (expected - {"add_kept"} | ATTENTION if is_narrow else expected)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("family", ["Gemma3Text"])
def test_layers_with_norms_around_and_gelu_compute_with_kernels_what_they_compute_without(
    new_gated: New, head: CausalHead, rows: list[Encoded], emulated: Emulated, dtype: torch.dtype
) -> None:
    launched = check(new_gated, head, rows[:5], emulated, dtype)
    expected = GATED | NORMS
    in_attention = {*ATTENTION, "finish_heads"}
    is_narrow = dtype in fused_attention.KERNEL_DTYPES
    assert launched == (expected - OF_32_BITS | in_attention if is_narrow else expected)
