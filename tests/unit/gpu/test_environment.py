"""The record of the machine survives whatever cannot be read of it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from nlijob.gpu import environment
from nlijob.records.job import GpuInfo


def fail(*_: Any, **__: Any) -> Any:
    raise OSError("not readable")


def test_the_record_names_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    info.write_bytes(b"processor\t: 0\nmodel name\t: A processor \xff\n")
    monkeypatch.setattr(environment, "CPU_INFO", info)
    assert environment.cpu_name() == "A processor \ufffd"


def test_a_machine_without_proc_names_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "CPU_INFO", tmp_path / "missing")
    assert environment.cpu_name()


def test_a_package_without_metadata_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "a-package-that-nobody-has"))
    assert environment._versions() == {"torch": importlib.metadata.version("torch")}


def test_a_gpu_whose_driver_does_not_tell_its_version_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    properties = SimpleNamespace(name="a GPU", uuid="ab", major=9, minor=0, total_memory=50)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    info = environment._gpu_info(torch.device("cuda", 0))
    assert info == GpuInfo("a GPU", "ab", "9.0", 50, None)
