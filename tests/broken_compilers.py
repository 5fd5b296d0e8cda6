"""Failing backends for torch.compile, each with the reason that is then given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nlijob.gpu.fast import attention, compiled


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


def attend_as_on_a_gpu(patch: pytest.MonkeyPatch) -> None:
    """Attend in shapes that depend on a pack's shape alone, which can be traced."""
    patch.setattr(attention, "_padded", lambda *given, longest: attention._masked(*given))
