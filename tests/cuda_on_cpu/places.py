"""Where kernels run: on a GPU, or on a CPU by `emulation`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.cuda_on_cpu.emulation import COMPILER, emulate, on_gpu

GPU = torch.device("cuda", 0)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
PLACES = [
    pytest.param("gpu", marks=[pytest.mark.gpu, needs_gpu]),
    pytest.param("cpu, first threads first", marks=needs_compiler),
    pytest.param("cpu, last threads first", marks=needs_compiler),
]


@dataclass(frozen=True)
class Place:
    """A device for kernels."""

    is_gpu: bool
    moved: Callable[[Tensor], Tensor]
    """Copy a tensor's storage to where kernels use it; strides stay."""


def make_place(name: str, patch: pytest.MonkeyPatch, folder: Path) -> Place:
    """One of PLACES; compiled kernels are kept in a folder."""
    if name == "gpu":
        return Place(True, lambda whole: whole.to(GPU, copy=True))
    emulate(patch, folder, "last" in name)
    return Place(False, lambda whole: on_gpu(whole.clone()))


def folder_of_libraries(base: Path) -> Path:
    """A folder that all processes of the tests share; `base`: that of this one's files."""
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cuda_on_cpu"
    folder.mkdir(exist_ok=True)
    return folder
