"""CUDA kernels of this project run on a CPU: their own source, compiled by a C++ compiler.

`cuda.hpp` has what the sources use of CUDA. This finds wrong results, accesses outside of tensors
and of shared memory, values that are read before they are written, addresses that are not aligned,
exchanges that not all lanes reach, and results that depend on which threads or blocks go first. It
does not find races between single instructions, nor what depends on the GPU itself.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nlijob.gpu.fast import fused_attention
from nlijob.gpu.fast.cuda import DTYPES, SCALARS, Source
from tests.cuda_on_cpu.guarded import Guarded

COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
HEADER = Path(__file__).with_name("cuda.hpp")
REPLACED = "instructions.cu"
SHARED = "extern __shared__ __align__(16) T memory[];"
FLAGS = [
    "-std=c++17",
    "-O1",
    "-w",
    "-shared",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
    "-fsanitize=alignment,bounds",
    "-fsanitize-undefined-trap-on-error",
]
MAX_THREADS = 1024
MAX_SHARED_BYTES = 227 * 1024
"""Shared memory of a block on an H100."""


class OnGpu(Tensor):
    """A tensor on a CPU that claims to be on a GPU, so that kernels are launched for it."""

    is_cuda = True


def on_gpu(value: Tensor) -> Tensor:
    """The same memory as a tensor that kernels are launched for."""
    return value.as_subclass(OnGpu)


def emulate(patch: pytest.MonkeyPatch, folder: Path, reversed: bool = False) -> Emulation:
    """Run kernels on the CPU from now on, as those of a GPU of compute capability 9.0.

    New tensors begin as NaNs, so that what is read before it is written does not look right.
    """
    emulation = Emulation(folder, reversed)

    def launch(source: Source, *given: Any, **others: Any) -> None:
        emulation.launch(source, *given, **others)

    patch.setattr(Source, "launch", launch)
    for name in ("empty", "empty_like"):
        patch.setattr(torch, name, _filled(getattr(torch, name)))
    patch.setattr(Tensor, "new_empty", _filled(Tensor.new_empty))
    patch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    patch.setattr(fused_attention, "_max_shared_bytes", lambda _: MAX_SHARED_BYTES)
    return emulation


def _filled(new: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def make(*given: Any, **options: Any) -> Tensor:
        made = new(*given, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    return make


class KernelError(AssertionError):
    """A kernel or its launch does what a GPU forbids, or what only sometimes goes well."""


@dataclass
class Emulation:
    """Launches kernels on a CPU."""

    folder: Path
    """For compiled libraries."""
    reversed: bool = False
    """The last blocks, warps and lanes go first."""
    launched: list[str] = field(default_factory=list)
    """Names of the kernels that ran."""

    def launch(
        self,
        source: Source,
        name: str,
        blocks: tuple[int, int],
        threads: int,
        *given: Any,
        shared_bytes: int = 0,
        **defined: int,
    ) -> None:
        """As `Source.launch`. Raises KernelError."""
        first = source.check(name, given)
        text = _program(source, defined)
        most = _most_threads(text, name, defined)
        if not 0 < threads <= most or 0 in blocks or shared_bytes > MAX_SHARED_BYTES:
            raise KernelError(f"{name}: {blocks} blocks of {threads} threads ({most} at most)")
        library = self._library(text, first.dtype)
        run = getattr(library, f"launch_{name}")
        run.restype = ctypes.c_char_p
        parameters = source.parameters[name]
        with torch._C.DisableTorchFunctionSubclass(), Guarded(at_end=not self.reversed) as memory:
            named = zip(parameters, given, strict=True)
            tensors = {p.name: value for p, value in named if isinstance(value, Tensor)}
            places = memory.take(tensors)
            values = [
                ctypes.c_void_p(places.get(p.name)) if p.is_pointer else SCALARS[p.type](value)
                for p, value in zip(parameters, given, strict=True)
            ]
            pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
            size = ctypes.c_size_t(shared_bytes)
            fault = run(pointers, *blocks, threads, size, int(self.reversed))
            if fault:
                raise KernelError(f"{name}: {memory.explain(fault.decode())}")
            memory.give_back()
        self.launched.append(name)

    def _library(self, text: str, dtype: torch.dtype) -> ctypes.CDLL:
        """The compiled source; other processes of the tests may compile it at the same time."""
        options = [*FLAGS, f"-D{DTYPES[dtype]}"]
        key = hashlib.sha256("\n".join([text, *options]).encode()).hexdigest()[:16]
        path = self.folder / f"{key}.so"
        if not path.exists():
            own = self.folder / f"{key}-{os.getpid()}.so"
            source = own.with_suffix(".cpp")
            source.write_text(text, encoding="utf-8")
            subprocess.run([str(COMPILER), *options, "-o", own, source], check=True)
            own.rename(path)
        return ctypes.CDLL(str(path))


def _program(source: Source, defined: Mapping[str, int]) -> str:
    """The source for a C++ compiler, with a function that launches each kernel."""
    assert source._files[0].name == REPLACED
    code = "".join(path.read_text(encoding="utf-8") for path in source._files[1:])
    code = code.replace(SHARED, "T* memory = reinterpret_cast<T*>(cpu::shared);")
    assert "extern __shared__" not in code
    macros = [f"#define {name} {value}\n" for name, value in defined.items()]
    parts = [HEADER.read_text(encoding="utf-8"), *macros, code]
    for name, parameters in source.parameters.items():
        values = ", ".join(
            f"*({p.type}{'*' * p.is_pointer}*)given[{i}]" for i, p in enumerate(parameters)
        )
        parts.append(f"""
extern "C" __attribute__((visibility("default"))) const char* launch_{name}(
    void** given, unsigned x, unsigned y, unsigned threads, unsigned long shared, int reversed) {{
    auto body = [](void** given) {{ {name}({values}); }};
    return cpu::run(body, given, x, y, threads, shared, reversed);
}}
""")
    return "".join(parts)


def _most_threads(text: str, name: str, defined: Mapping[str, int]) -> int:
    """The threads that a kernel's registers suffice for, as its declaration says."""
    bound = re.search(rf"__launch_bounds__\((\w+)\)\s+{name}\(", text)
    if not bound:
        return MAX_THREADS
    return defined[bound[1]] if bound[1] in defined else int(bound[1])
