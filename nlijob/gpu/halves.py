"""Work in halves where it does not fit into memory at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

R = TypeVar("R")
T = TypeVar("T")


def in_halves(work: Callable[[Sequence[R]], T], rows: Sequence[R]) -> list[T]:
    """The work's results for all rows or for parts of them, in order.

    Raises torch.OutOfMemoryError where one row alone does not fit.
    """
    try:
        return [work(rows)]
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise
    torch.cuda.empty_cache()  # not before the error is gone, and with it the memory it holds
    middle = len(rows) // 2
    return [*in_halves(work, rows[:middle]), *in_halves(work, rows[middle:])]
