"""How far what one way computes is from what another does."""

from __future__ import annotations

from torch import Tensor


def relative_difference(values: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what was expected, of tensors of one shape."""
    return float((values - expected).norm() / expected.norm())
