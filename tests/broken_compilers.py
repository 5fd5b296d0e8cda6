"""Failing backends for torch.compile, each with the reason that is then given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nlijob.gpu.fast import compiled


def stronger(module: Any, _: Any) -> Callable[..., Any]:
    """A backend whose layers return 1.5 times the right values."""
    return lambda *inputs: tuple(part * 1.5 for part in module(*inputs))


def missing(module: Any, _: Any) -> Callable[..., Any]:
    """A backend that is not installed."""
    raise FileNotFoundError("no C compiler")


each = pytest.mark.parametrize(
    ("backend", "why"), [(stronger, "gradients differ"), (missing, "no C compiler")]
)


def use(backend: Any, patch: pytest.MonkeyPatch) -> None:
    """Compile layers with this backend."""
    patch.setattr(compiled, "BACKEND", backend)
    patch.setattr(compiled, "OPTIONS", None)
