"""Where kernels run: on a GPU, or on a CPU by `emulation`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.cuda_on_cpu.emulation import COMPILER, Emulation, emulate, on_gpu

GPU = torch.device("cuda", 0)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
ON_GPU, FIRST, LAST = "gpu", "cpu, first threads first", "cpu, last threads first"
PLACES = [
    pytest.param(ON_GPU, marks=[pytest.mark.gpu, needs_gpu]),
    pytest.param(FIRST, marks=needs_compiler),
    pytest.param(LAST, marks=needs_compiler),
]


@dataclass(frozen=True)
class Place:
    """A device for kernels."""

    moved: Callable[[Tensor], Tensor]
    """Copy a tensor to where kernels are launched for it."""
    emulation: Emulation | None = None
    """None on a GPU."""


def make_place(name: str, patch: pytest.MonkeyPatch, folder: Path) -> Place:
    """One of PLACES; compiled kernels are kept in a folder."""
    if name == ON_GPU:
        return Place(lambda whole: whole.to(GPU, copy=True))
    emulation = emulate(patch, folder, name == LAST)
    return Place(lambda whole: on_gpu(whole.clone()), emulation)


def folder_of_libraries(base: Path) -> Path:
    """A folder that all processes of the tests share; `base`: that of this one's files."""
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cuda_on_cpu"
    folder.mkdir(exist_ok=True)
    return folder
