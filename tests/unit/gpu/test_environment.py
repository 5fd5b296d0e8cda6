"""The record of the machine survives whatever cannot be read of it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from nlijob.gpu import environment


def fail(*_: Any, **__: Any) -> Any:
    raise OSError("not readable")


def test_the_record_names_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    info.write_bytes(b"processor\t: 0\nmodel name\t: A processor \xff\n")
    monkeypatch.setattr(environment, "CPU_INFO", info)
    assert environment._cpu_name() == "A processor \ufffd"


def test_a_machine_without_proc_names_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "CPU_INFO", tmp_path / "missing")
    assert environment._cpu_name()


def test_a_package_without_metadata_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "a-package-that-nobody-has"))
    assert environment._versions() == {"torch": importlib.metadata.version("torch")}
