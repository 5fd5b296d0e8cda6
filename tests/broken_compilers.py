"""Compilers for torch that fail, each with what is then said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nlijob.gpu.fast import compiled


def stronger(module: Any, _: Any) -> Callable[..., Any]:
    """Its layers give half as much again."""
    return lambda *inputs: tuple(part * 1.5 for part in module(*inputs))


def missing(module: Any, _: Any) -> Callable[..., Any]:
    """It is not there."""
    raise FileNotFoundError("no C compiler")


each = pytest.mark.parametrize(
    ("backend", "why"), [(stronger, "gradients differ"), (missing, "no C compiler")]
)


def use(backend: Any, patch: pytest.MonkeyPatch) -> None:
    """Have layers compiled by this one."""
    patch.setattr(compiled, "BACKEND", backend)
    patch.setattr(compiled, "OPTIONS", None)
