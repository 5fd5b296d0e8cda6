"""Recognising that memory ran out, and repeating work in halves when it does."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

R = TypeVar("R")
T = TypeVar("T")
MESSAGES = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Messages of the RuntimeErrors by which CUDA's libraries report a lack of memory."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, says that memory ran out.

    The error that ends a CUDA graph capture may hide the one that interrupted it.
    """
    while error:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(error, RuntimeError) and any(text in str(error) for text in MESSAGES):
            return True
        error = error.__cause__ or error.__context__
    return False


def free_memory() -> None:
    """Free what is no longer in use.

    Call it after the except block, because the error keeps the memory of its frames alive.
    """
    gc.collect()
    torch.cuda.empty_cache()  # does nothing where no GPU is in use


def in_halves(work: Callable[[Sequence[R]], T], rows: Sequence[R]) -> list[T]:
    """Results of `work` in order: one for all rows, or several where they do not fit into memory.

    Raises torch.OutOfMemoryError where a single row does not fit.
    """
    try:
        return [work(rows)]
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise
    free_memory()
    middle = len(rows) // 2
    return [*in_halves(work, rows[:middle]), *in_halves(work, rows[middle:])]
