"""Repeating work in halves when memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from nlijob.memory import is_out_of_memory

R = TypeVar("R")
T = TypeVar("T")


def free_memory() -> None:
    """Free what is no longer in use.

    Call it after the except block, because the error keeps the memory of its frames alive.
    """
    gc.collect()
    torch.cuda.empty_cache()  # does nothing where no GPU is in use


def in_halves(work: Callable[[Sequence[R]], T], rows: Sequence[R]) -> list[T]:
    """Results of `work` in order: one for all rows, or several where they do not fit into memory.

    Raises the error of `work` if a single row does not fit, or if memory is not the reason.
    """
    try:
        return [work(rows)]
    except Exception as error:
        if len(rows) == 1 or not is_out_of_memory(error):
            raise
    free_memory()
    middle = len(rows) // 2
    return [*in_halves(work, rows[:middle]), *in_halves(work, rows[middle:])]
