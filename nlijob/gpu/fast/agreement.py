"""A measure of the difference between two results of one computation."""

from __future__ import annotations

from torch import Tensor


def relative_difference(values: Tensor, expected: Tensor) -> float:
    """Norm of `values - expected` divided by the norm of `expected`; both have one shape."""
    return float((values - expected).norm() / expected.norm())
