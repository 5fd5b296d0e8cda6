"""Uncertainty of a figure, as results.json has it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """Difference in accuracy between two models on the same rows."""

    gained: int
    """Rows that only the first model labels correctly."""
    lost: int
    """Rows that only the second model labels correctly."""
    difference: float
    """Accuracy of the first minus that of the second (-1 to 1)."""
    interval: Interval
    mcnemar_p: float
    """Exact two-sided McNemar test; where premises repeat, its form that takes them as units."""
    premises: int | None = None
    """Number of premises, where interval and test take them as units because some have several
    rows; None where each row is a unit."""
