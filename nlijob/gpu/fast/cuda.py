"""CUDA kernels of this project, compiled by NVRTC, which comes with torch, and kept on disk.

The parameters of a kernel are read from its source, and every launch is checked against them: a
launch passes plain addresses, and a wrong argument would corrupt memory.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlijob.gpu.fast.errors import Unsupported
from nlijob.gpu.fast.kernel_cache import KernelCache

FOLDER = Path(__file__).parent
PRELUDE = ("instructions.cu", "values.cu")
"""Files that every source begins with."""
DTYPES = {torch.float32: "FLOAT32", torch.bfloat16: "BFLOAT16", torch.float16: "FLOAT16"}
ELEMENT = "T"
"""The kernels' name for the element type that they are compiled for."""
POINTERS = {
    ELEMENT: None,
    "float": torch.float32,
    "int": torch.int32,
    "unsigned char": torch.uint8,
}
"""What a kernel calls the values behind a pointer, and their dtype."""
SCALARS: dict[str, Any] = {"int": ctypes.c_int, "long": ctypes.c_int64, "float": ctypes.c_float}
SIGNATURE = re.compile(
    r'extern "C" __global__ void\s+(?:__launch_bounds__\(\w+\)\s+)?(\w+)\(([^()]*)\)\s*\{'
)
PARAMETER = re.compile(r"(?:const )?([a-zA-Z ]+?)( ?\*)? ?(\w+)")
FREE_SHARED_BYTES = 48 * 1024
"""Shared memory that a block may use without asking for more."""

Capability = tuple[int, int]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kernel."""

    name: str
    type: str
    """A key of POINTERS or of SCALARS."""
    is_pointer: bool

    def check(self, value: Any, first: Tensor) -> None:
        """Raise TypeError where a value is not of the parameter's type; `first` is the launch's
        first tensor, whose device and dtype the others share."""
        fits = self._is_tensor(value, first) if self.is_pointer else self._is_number(value)
        if not fits:
            given = f"{value.dtype} on {value.device}" if isinstance(value, Tensor) else repr(value)
            raise TypeError(f"{self.type}{' *' * self.is_pointer} {self.name}: {given}")

    def _is_tensor(self, value: Any, first: Tensor) -> bool:
        if value is None:
            return True
        dtype = POINTERS[self.type] or first.dtype
        return isinstance(value, Tensor) and value.dtype is dtype and value.device == first.device

    def _is_number(self, value: Any) -> bool:
        if self.type == "float":
            return isinstance(value, int | float) and not isinstance(value, bool)
        # ctypes cuts off the bits of an integer that is too large
        return type(value) is int and SCALARS[self.type](value).value == value


def signatures(text: str) -> dict[str, tuple[Parameter, ...]]:
    """The parameters of each kernel in a CUDA source.

    Raises ValueError for a declaration or a parameter type that is unknown here.
    """
    code = re.sub(r"//[^\n]*", "", text)
    found = {name: _parameters(name, listed) for name, listed in SIGNATURE.findall(code)}
    if len(found) != code.count("__global__"):
        raise ValueError(f"only the signatures of {', '.join(found) or 'no kernel'} can be read")
    return found


def _parameters(kernel: str, listed: str) -> tuple[Parameter, ...]:
    parameters = []
    for part in listed.split(","):
        text = " ".join(part.split())
        match = PARAMETER.fullmatch(text)
        is_pointer = bool(match and match[2])
        if not match or match[1] not in (POINTERS if is_pointer else SCALARS):
            raise ValueError(f"{kernel}: the type of '{text}' is unknown")
        parameters.append(Parameter(match[3], match[1], is_pointer))
    return tuple(parameters)


def compiler() -> str:
    """Name and version of the compiler. Raises Unsupported where it is missing."""
    try:
        _, major, minor = _nvrtc().nvrtcVersion()
    except RuntimeError as error:  # its library is not installed, or does not fit
        raise Unsupported(f"CUDA kernels cannot be compiled: {error}") from error
    return f"NVRTC {major}.{minor}"


def compile_cubin(name: str, text: bytes, options: Sequence[str]) -> bytes:
    """A CUDA source as a binary for the GPU that `options` name; needs no GPU itself.

    Raises Unsupported where NVRTC is missing or refuses the source.
    """
    nvrtc = _nvrtc()
    program = _done(nvrtc.nvrtcCreateProgram(text, name.encode(), 0, [], []))
    wanted = [option.encode() for option in options]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(wanted), wanted)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = bytes(_done(nvrtc.nvrtcGetProgramLogSize(program)))
        _done(nvrtc.nvrtcGetProgramLog(program, log))
        raise Unsupported(f"CUDA kernels: {log.decode(errors='replace')}")
    cubin = bytes(_done(nvrtc.nvrtcGetCUBINSize(program)))
    _done(nvrtc.nvrtcGetCUBIN(program, cubin))
    return cubin


def _nvrtc() -> Any:
    """The compiler's functions; raises Unsupported where it is missing."""
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise Unsupported(f"CUDA kernels cannot be compiled: {error}") from error
    return nvrtc


class Source:
    """A CUDA source file in this folder."""

    def __init__(self, name: str, *before: str) -> None:
        """`before`: files of functions that the source uses."""
        self._file = FOLDER / name
        self._files = [FOLDER / other for other in (*PRELUDE, *before, name)]
        self._loaded = functools.cache(self._load)

    @functools.cached_property
    def parameters(self) -> dict[str, tuple[Parameter, ...]]:
        """The parameters of each kernel in the file."""
        return signatures(self._file.read_text(encoding="utf-8"))

    @functools.cached_property
    def _kinds(self) -> dict[str, tuple[Any, ...]]:
        """The types of each kernel's parameters, as `ctypes` has them."""
        return {
            name: tuple(ctypes.c_void_p if p.is_pointer else SCALARS[p.type] for p in parameters)
            for name, parameters in self.parameters.items()
        }

    def compile(self, device: torch.device, dtype: torch.dtype, **defined: int) -> None:
        """Compile and load the kernels. Raises Unsupported where that fails."""
        self._loaded(_index(device), dtype, **defined)

    def cubin(self, capability: Capability, dtype: torch.dtype, **defined: int) -> bytes:
        """The kernels compiled for an element type and GPUs of a compute capability.

        `defined`: macros that the source expects. Needs no GPU. Raises Unsupported.
        """
        return compile_cubin(self._file.name, *self._program(capability, dtype, defined))

    def kept_cubin(self, capability: Capability, dtype: torch.dtype, **defined: int) -> bytes:
        """As `cubin`, but not compiled again if it was kept on disk."""
        text, options = self._program(capability, dtype, defined)
        return KernelCache().get(
            text, options, compiler(), lambda: compile_cubin(self._file.name, text, options)
        )

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

        Tensors are passed as pointers, None as a null pointer. Raises TypeError where an argument
        is not of the type that the kernel declares, RuntimeError where the launch fails.
        """
        first = self.check(name, given)
        from cuda.bindings import driver

        kernel = self._loaded(_index(first.device), first.dtype, **defined)[name]
        if shared_bytes > FREE_SHARED_BYTES:
            limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _done(driver.cuFuncSetAttribute(kernel, limit, shared_bytes), RuntimeError)
        parameters = (tuple(_pointer(value) for value in given), self._kinds[name])
        stream = torch.cuda.current_stream(first.device).cuda_stream
        shape = (*blocks, 1, threads, 1, 1)
        launched = driver.cuLaunchKernel(kernel, *shape, shared_bytes, stream, parameters, 0)
        _done(launched, RuntimeError)

    def check(self, name: str, given: Sequence[Any]) -> Tensor:
        """The first of a launch's arguments, a tensor; raises TypeError as `launch` does."""
        parameters = self.parameters[name]
        if len(given) != len(parameters):
            raise TypeError(f"{name} takes {len(parameters)} arguments, and {len(given)} are given")
        first = given[0]
        if not isinstance(first, Tensor):
            raise TypeError(f"{name} takes a tensor first: {first!r}")
        for parameter, value in zip(parameters, given, strict=True):
            parameter.check(value, first)
        return first

    def _program(
        self, capability: Capability, dtype: torch.dtype, defined: Mapping[str, int]
    ) -> tuple[bytes, list[str]]:
        """The whole source, and the options to compile it with."""
        architecture = "sm_{}{}".format(*capability)
        options = [f"--gpu-architecture={architecture}", f"-D{DTYPES[dtype]}"]
        options += [f"-D{name}={value}" for name, value in defined.items()]
        text = b"".join(path.read_bytes() for path in self._files)
        return text, options

    def _load(self, device: int, dtype: torch.dtype, **defined: int) -> dict[str, Any]:
        """The kernels on a device, by name."""
        cubin = self.kept_cubin(torch.cuda.get_device_capability(device), dtype, **defined)
        from cuda.bindings import driver

        with torch.cuda.device(device):
            torch.cuda.current_stream().synchronize()  # creates a context
            module = _done(driver.cuModuleLoadData(cubin))
            return {
                name: _done(driver.cuModuleGetFunction(module, name.encode()))
                for name in self.parameters
            }


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def _pointer(value: Any) -> Any:
    if value is None:
        return 0
    return value.data_ptr() if isinstance(value, Tensor) else value


def _done(answer: tuple[Any, ...], fault: type[Exception] = Unsupported) -> Any:
    status, *values = answer
    if int(status) != 0:
        raise fault(f"CUDA kernels: {status.name}")
    return values[0] if values else None
