"""What to do where memory is short: tell it from other faults, and do work in halves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

R = TypeVar("R")
T = TypeVar("T")
IN_WORDS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How CUDA's libraries say so, where torch has no error of its own for it."""


def ran_out(error: BaseException | None) -> bool:
    """Whether memory was short; what ends a capture may cover the error that broke it off."""
    while error:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(error, RuntimeError) and any(words in str(error) for words in IN_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


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
