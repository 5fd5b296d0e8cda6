"""Stand-ins for a driver: a program on PATH, and a module that every process imports."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Install = Callable[[str], None]

ROW = "0, GPU-1, 37, 81559, 100, 81459, 580.65.06, NVIDIA H200, [N/A], Disabled, Disabled, 41"
"""A row as nvidia-smi prints it for GPUtil: 37 % load, 100 MiB in use, 41 degrees."""

NVML = """
    class NVMLError(Exception): pass
    class Record:
        def __init__(self, **values): self.__dict__.update(values)
    NVML_TEMPERATURE_GPU = 0
    def nvmlInit(): pass
    def nvmlDeviceGetCount(): return 1
    def nvmlSystemGetDriverVersion(): return "580.65.06"
    def nvmlDeviceGetHandleByIndex(index): return index
    def nvmlDeviceGetUUID(handle): return "GPU-1"
    def nvmlDeviceGetUtilizationRates(handle): return Record(gpu=50)
    def nvmlDeviceGetMemoryInfo(handle): return Record(used=200)
    def nvmlDeviceGetTemperature(handle, sensor): return 60
    def nvmlDeviceGetTotalEnergyConsumption(handle): return 5000
    def nvmlDeviceGetPowerUsage(handle): return 300000
    def nvmlDeviceGetMaxMigDeviceCount(handle): raise NVMLError("Not Supported")
"""
"""A module pynvml with one GPU: 50 % load, 200 bytes in use, 60 degrees, 5 J so far, 300 W."""


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a shell script in the place of nvidia-smi, first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def install(script: str) -> None:
        program = folder / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)

    return install


@pytest.fixture
def pynvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a module in the place of pynvml, for this process and for those that it starts."""
    folder = tmp_path / "modules"
    folder.mkdir()
    inherited = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{inherited}")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(source: str) -> None:
        (folder / "pynvml.py").write_text(textwrap.dedent(source), encoding="utf-8")
        monkeypatch.delitem(sys.modules, "pynvml", raising=False)

    yield install
    sys.modules.pop("pynvml", None)


@pytest.fixture
def driver(nvidia_smi: Install, pynvml: Install) -> None:
    """A driver with one GPU that answers both ways."""
    nvidia_smi(f"echo '{ROW}'")
    pynvml(NVML)
