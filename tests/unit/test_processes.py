"""The number of processes: what is asked for, as far as it is there."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Literal

import pytest

from nlijob import processes
from nlijob.config import Device, JobConfig, MachineConfig, load_config
from nlijob.errors import ConfigurationError
from nlijob.hardware import gpu_name
from nlijob.processes import processes_of


@pytest.fixture(autouse=True)
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(processes, "gpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def asking(gpus: int | Literal["auto"], device: Device = "cuda") -> JobConfig:
    config = load_config("demo")
    model = replace(config.model, device=device)
    return replace(config, model=model, machine=MachineConfig(gpus=gpus))


@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_so_many_gpus_are_used_as_are_asked_for(gpus: int) -> None:
    assert processes_of(asking(gpus)) == gpus


@pytest.mark.parametrize("gpus", [0, -1, 5])
def test_more_gpus_than_there_are_is_an_error_that_says_how_many(gpus: int) -> None:
    with pytest.raises(ConfigurationError, match="there are 4 GPUs"):
        processes_of(asking(gpus))


def test_on_a_cpu_there_is_a_process_for_each_core_at_most() -> None:
    assert processes_of(asking(2, "cpu")) == 2
    with pytest.raises(ConfigurationError, match="there are 2 cores"):
        processes_of(asking(3, "cpu"))


class Driver:
    """Enough of pynvml to name GPUs."""

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"index {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return f"uuid {uuid}"

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        return f"GPU of {handle}"


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        (None, "GPU of index 1"),
        ("2, 3", "GPU of index 3"),
        ("GPU-a,GPU-b", "GPU of uuid GPU-b"),
    ],
)
def test_a_gpu_is_named_by_its_number_among_the_visible_ones(
    monkeypatch: pytest.MonkeyPatch, shown: str | None, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert gpu_name(1) == name


def test_a_driver_that_does_not_answer_names_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_name(0) == ""
