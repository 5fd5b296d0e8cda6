"""CUDA kernels of our own, compiled when they are first needed by the compiler that comes with
torch's CUDA libraries (NVRTC); no other compiler is asked for."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlijob.gpu.fast.errors import NotServed

FOLDER = Path(__file__).parent
PRELUDE = FOLDER / "values.cu"
DTYPES = {torch.float32: "FLOAT32", torch.bfloat16: "BFLOAT16", torch.float16: "FLOAT16"}
KINDS = {"p": ctypes.c_void_p, "l": ctypes.c_int64, "i": ctypes.c_int, "f": ctypes.c_float}
FREE_SHARED_BYTES = 48 * 1024
"""Shared memory that a block may have unasked."""


class Source:
    """A file of kernels beside this one."""

    def __init__(self, name: str, parameters: Mapping[str, str]) -> None:
        """`parameters`: kernel -> its parameters in order, a letter of KINDS each: pointers, long
        and short integers, floats."""
        self._file = FOLDER / name
        self._parameters = parameters
        self._compiled = functools.cache(self._compile)

    def compile(self, device: torch.device, dtype: torch.dtype, **defined: int) -> None:
        """Have the kernels ready. Raises NotServed where they cannot be had."""
        self._compiled(_index(device), dtype, tuple(defined.items()))

    def launch(
        self,
        name: str,
        blocks: tuple[int, int],
        threads: int,
        *given: Any,
        shared_bytes: int = 0,
        **defined: int,
    ) -> None:
        """Run a kernel on the current stream of the first tensor's device, for its element type.

        Tensors are given as pointers, None as a null pointer. Raises RuntimeError.
        """
        from cuda.bindings import driver

        first: Tensor = given[0]
        device = first.device
        kernel = self._compiled(_index(device), first.dtype, tuple(defined.items()))[name]
        if shared_bytes > FREE_SHARED_BYTES:
            limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _done(driver.cuFuncSetAttribute(kernel, limit, shared_bytes), RuntimeError)
        values = tuple(_pointer(value) for value in given)
        kinds = tuple(KINDS[letter] for letter in self._parameters[name])
        stream = torch.cuda.current_stream(device).cuda_stream
        shape = (*blocks, 1, threads, 1, 1)
        launched = driver.cuLaunchKernel(kernel, *shape, shared_bytes, stream, (values, kinds), 0)
        _done(launched, RuntimeError)

    def _compile(
        self, device: int, dtype: torch.dtype, defined: tuple[tuple[str, int], ...]
    ) -> dict[str, Any]:
        try:
            from cuda.bindings import driver, nvrtc
        except ImportError as error:
            raise NotServed(f"CUDA kernels cannot be compiled: {error}") from error
        major, minor = torch.cuda.get_device_capability(device)
        options = [f"--gpu-architecture=sm_{major}{minor}", f"-D{DTYPES[dtype]}"]
        options += [f"-D{name}={value}" for name, value in defined]
        text = PRELUDE.read_bytes() + self._file.read_bytes()
        with torch.cuda.device(device):
            torch.cuda.current_stream().synchronize()  # so that there is a context
            program = _done(nvrtc.nvrtcCreateProgram(text, self._file.name.encode(), 0, [], []))
            wanted = [option.encode() for option in options]
            (status,) = nvrtc.nvrtcCompileProgram(program, len(wanted), wanted)
            if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
                log = bytes(_done(nvrtc.nvrtcGetProgramLogSize(program)))
                _done(nvrtc.nvrtcGetProgramLog(program, log))
                raise NotServed(f"CUDA kernels: {log.decode(errors='replace')}")
            binary = bytes(_done(nvrtc.nvrtcGetCUBINSize(program)))
            _done(nvrtc.nvrtcGetCUBIN(program, binary))
            module = _done(driver.cuModuleLoadData(binary))
            return {
                name: _done(driver.cuModuleGetFunction(module, name.encode()))
                for name in self._parameters
            }


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def _pointer(value: Any) -> Any:
    if value is None:
        return 0
    return value.data_ptr() if isinstance(value, Tensor) else value


def _done(answer: tuple[Any, ...], fault: type[Exception] = NotServed) -> Any:
    status, *values = answer
    if int(status) != 0:
        raise fault(f"CUDA kernels: {status.name}")
    return values[0] if values else None
