"""The GPU's context is created beside the imports; where that fails, nothing else does."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from nlijob.gpu.context import EarlyContext, early_context


def finished(environment: dict[str, str]) -> float | None:
    """How long the context of such a process took, once its thread has ended."""
    context = EarlyContext(environment)
    context.wait()
    return context.duration_s


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What a driver, which is a stub, was asked for, and for which GPU."""
    calls: list[tuple[str, int]] = []

    def call(name: str) -> Callable[..., int]:
        def answer(*arguments: Any) -> int:
            calls.append((name, arguments[-1] if isinstance(arguments[-1], int) else 0))
            return 100 if arguments[-1] == 7 else 0  # there is no GPU 7

        return answer

    names = ("cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain")
    driver = SimpleNamespace(**{name: call(name) for name in names})
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    return calls


def test_a_process_creates_the_context_of_its_own_gpu(asked: list[tuple[str, int]]) -> None:
    environment = {"LOCAL_RANK": "3"}
    assert finished(environment) is not None
    assert [name for name, _ in asked] == ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain"]
    assert dict(asked)["cuDeviceGet"] == 3
    assert environment["CUDA_MODULE_LOADING"] == "LAZY"  # as torch has it


def test_a_way_of_loading_that_the_user_chose_stays(asked: list[tuple[str, int]]) -> None:
    environment = {"CUDA_MODULE_LOADING": "EAGER"}
    finished(environment)
    assert environment["CUDA_MODULE_LOADING"] == "EAGER"


def test_what_the_launcher_has_begun_is_not_begun_again(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_MODULE_LOADING", "LAZY")  # and so is set back afterwards
    early_context.cache_clear()
    assert early_context() is early_context()
    early_context.cache_clear()


def test_a_gpu_that_is_not_there_is_left_to_torch(asked: list[tuple[str, int]]) -> None:
    assert finished({"LOCAL_RANK": "7"}) is None
    assert [name for name, _ in asked] == ["cuInit", "cuDeviceGet"]


def test_a_machine_without_a_driver_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlijob.gpu.context.DRIVER", "libnowhere.so.0")
    assert finished({}) is None
