"""Check, without a GPU, that the image has what the job needs on one. Runs inside the image."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import torch
from cuda.bindings import nvrtc

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
PHI2_SHAPE = ("-DHEAD=80", "-DHALF=16", "-DRANK=16", "-DMAX_THREADS=192", "-DGROUP=1", "-DFINAL=0")
EXTENSION = "#include <Python.h>\nPyObject *none(void) { return Py_None; }\n"


def folder_of(package: str) -> Path:
    """Folder that a package is installed in."""
    spec = find_spec(package)
    assert spec, package
    return Path(str(spec.origin)).parent


def compile_kernels(files: tuple[str, ...], *options: str) -> None:
    """Have NVRTC make machine code from files of the job's kernels."""
    folder = folder_of("nlijob.gpu.fast")
    whole = ("instructions.cu", "values.cu", *files)
    source = b"".join((folder / file).read_bytes() for file in whole)
    status, program = nvrtc.nvrtcCreateProgram(source, files[-1].encode(), 0, [], [])
    assert int(status) == 0, status
    arguments = [option.encode() for option in options]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(arguments), arguments)
    log = bytes(nvrtc.nvrtcGetProgramLogSize(program)[1])
    nvrtc.nvrtcGetProgramLog(program, log)
    assert int(status) == 0, log.decode()
    assert nvrtc.nvrtcGetCUBINSize(program)[1], options


missing = set()
for library in (folder_of("torch") / "lib").glob("lib*cuda*.so"):
    links = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    missing |= {line.split()[0] for line in links.splitlines() if "not found" in line}
assert missing <= {"libcuda.so.1"}, missing  # the driver's own, mounted into the container
print(f"torch {torch.__version__} finds all libraries of CUDA {torch.version.cuda}")

# Turing does not compute in bfloat16, and fused attention needs Ampere: as in nlijob/gpu/fast.
for architecture, kind in itertools.product(ARCHITECTURES, ("FLOAT32", "FLOAT16", "BFLOAT16")):
    options = (f"--gpu-architecture={architecture}", f"-D{kind}")
    if (architecture, kind) != ("sm_75", "BFLOAT16"):
        for file in ("kernels.cu", "gated.cu", "dropout.cu"):
            compile_kernels((file,), *options)
    if architecture != "sm_75" and kind != "FLOAT32":
        for file in ("attention.cu", "heads.cu"):
            compile_kernels(("tiles.cu", file), *options, *PHI2_SHAPE)
print(f"NVRTC {nvrtc.nvrtcVersion()[1:]} compiles the kernels for {', '.join(ARCHITECTURES)}")

version = str(torch.version.cuda).replace(".", "")
ctypes.CDLL(str(folder_of("bitsandbytes") / f"libbitsandbytes_cuda{version}.so"))
print(f"libbitsandbytes_cuda{version}.so loads")

include = sysconfig.get_path("include")
gcc = ["gcc", "-shared", "-fPIC", f"-I{include}", "-x", "c", "-", "-o", "/tmp/extension.so"]
subprocess.run(gcc, input=EXTENSION, text=True, check=True)
ctypes.CDLL("/tmp/extension.so")
print("gcc builds an extension module, as Triton has it do")
