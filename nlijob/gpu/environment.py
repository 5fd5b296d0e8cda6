"""The machine as the GPU side sees it: its device, its memory, and the record of both."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import socket
from pathlib import Path

import torch
from accelerate import Accelerator

from nlijob.config import JobConfig
from nlijob.errors import HardwareError
from nlijob.gpu.model import LoadedModel
from nlijob.gpu.parameters import is_double_quantized
from nlijob.hardware import driver_version
from nlijob.records.job import Environment, GpuInfo, Memory

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "datasets",
    "huggingface_hub",
    "tokenizers",
    "safetensors",
    "numpy",
    "GPUtil",
    "jinja2",
    "matplotlib",
    "click",
)
CPU_INFO = Path("/proc/cpuinfo")


def job_device(config: JobConfig) -> torch.device:
    """Return the device that accelerate assigns to this process.

    Raises HardwareError if it is not the requested one, or if torch has no kernels for it.
    """
    device: torch.device = Accelerator(cpu=config.model.device == "cpu").device
    if device.type != config.model.device:
        raise HardwareError(
            "the driver reports a GPU, but torch cannot use it "
            f"(torch {torch.__version__}, built for CUDA {torch.version.cuda})",
            "install a CUDA build of torch that the driver supports, or use --device cpu",
        )
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        _check_capability(device)
    return device


def _check_capability(device: torch.device) -> None:
    """Raise HardwareError before loading a model if this torch has no kernels for the GPU."""
    major, minor = torch.cuda.get_device_capability(device)
    names = [arch for arch in torch.cuda.get_arch_list() if arch.startswith("sm_")]
    built_for = [int(name.removeprefix("sm_").rstrip("af")) for name in names]
    if built_for and major * 10 + minor < min(built_for):
        raise HardwareError(
            f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor}, but "
            f"torch {torch.__version__} is built for {min(built_for) / 10} and newer",
            "install a torch build for an older CUDA version (12.6 supports Pascal and Volta)",
        )


def memory(device: torch.device) -> Memory:
    """Return torch's peak memory since the last reset; None on a CPU."""
    if device.type != "cuda":
        return Memory(None, None)
    return Memory(torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device))


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of peak memory; does nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def environment(loaded: LoadedModel) -> Environment:
    """Return machine, versions, and what the model settings "auto" resolved to."""
    gpus = (_gpu_info(loaded.device),) if loaded.device.type == "cuda" else ()
    return Environment(
        device="cuda" if gpus else "cpu",
        gpus=gpus,
        platform=platform.platform(),
        python_version=platform.python_version(),
        packages=_versions(),
        cuda_version=torch.version.cuda,
        cpu_name=cpu_name(),
        cpu_count=os.cpu_count() or len(os.sched_getaffinity(0)),
        ram_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        compute_dtype=str(loaded.compute_dtype).removeprefix("torch."),
        attention=str(loaded.model.config._attn_implementation),
        head=loaded.head,
        double_quantization=is_double_quantized(loaded.model),
        unquantized_modules=loaded.unquantized,
    )


def _gpu_info(device: torch.device) -> GpuInfo:
    properties = torch.cuda.get_device_properties(device)
    return GpuInfo(
        name=properties.name,
        uuid=str(properties.uuid),
        compute_capability=f"{properties.major}.{properties.minor}",
        total_memory_bytes=properties.total_memory,
        driver_version=driver_version(),
        host=_host(),
    )


def _host() -> str:
    """The name of this host, if the launcher has started processes on others too; else ""."""
    return socket.gethostname() if int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1 else ""


def _versions() -> dict[str, str]:
    """Package -> version, of those packages that are installed with their metadata."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def cpu_name() -> str:
    """The model of this machine's CPU."""
    with contextlib.suppress(OSError):
        for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
