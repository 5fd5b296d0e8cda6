"""Finds weights that are NaN or infinite, which spoil every answer of a model.

It reads the files themselves, in parallel with the loading: 4-bit weights no longer show them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from nlijob.weight_files import StoredTensor, stored_tensors

Bits = np.uint16 | np.uint32 | np.uint64
EXPONENTS: dict[str, Bits] = {
    "F16": np.uint16(0x7C00),
    "BF16": np.uint16(0x7F80),
    "F32": np.uint32(0x7F80_0000),
    "F64": np.uint64(0x7FF0_0000_0000_0000),
}
"""Type -> the bits of the exponent (IEEE 754); a number with all of them set is not finite."""
READ_BYTES = 1024**2
MAX_THREADS = 8

Found = tuple[Path, str]
"""A file, and the name of a tensor in it."""


def not_finite(files: Sequence[Path]) -> list[Found]:
    """The tensors of safetensors files that hold NaN or infinite values."""
    tensors = [
        (file, tensor)
        for file in files
        for tensor in stored_tensors(file)
        if tensor.dtype in EXPONENTS
    ]
    threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads) as pool:
        bad = list(pool.map(_holds_not_finite, tensors))
    return [(file, t.name) for (file, t), is_bad in zip(tensors, bad, strict=True) if is_bad]


def _holds_not_finite(place: tuple[Path, StoredTensor]) -> bool:
    file, tensor = place
    exponent = EXPONENTS[tensor.dtype]
    buffer = bytearray(READ_BYTES)
    bits: np.ndarray[Any, Any] = np.frombuffer(buffer, exponent.dtype)
    masked: np.ndarray[Any, Any] = np.empty_like(bits)
    left = tensor.end - tensor.start
    with file.open("rb", buffering=0) as handle:
        handle.seek(tensor.start)
        while left:
            read = handle.readinto(memoryview(buffer)[: min(left, READ_BYTES)])
            # a short read may end within a number, which the next read starts with again
            whole = read // exponent.itemsize
            if not whole:
                return False  # the file was cut off meanwhile; loading says so
            handle.seek(whole * exponent.itemsize - read, os.SEEK_CUR)
            np.bitwise_and(bits[:whole], exponent, out=masked[:whole])
            if (masked[:whole] == exponent).any():
                return True
            left -= whole * exponent.itemsize
    return False
