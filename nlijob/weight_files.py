"""What a safetensors file says about itself, read without torch: its tensors and where they lie.

The format is that of https://github.com/huggingface/safetensors: eight bytes with the length of a
JSON header, the header with the type, shape and place of each tensor, and the tensors' bytes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
LFS_POINTER = b"version https://git-lfs"
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Type -> bits of one value."""


class BrokenFileError(ValueError):
    """A file is not what its name says; the message completes "FILE ..."."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Position of its first byte in the file."""
    end: int
    """Position after its last byte."""


def stored_tensors(file: Path) -> list[StoredTensor]:
    """The tensors of a safetensors file, in the order of their bytes.

    Raises BrokenFileError where header and size of the file do not fit, and OSError.
    """
    size = file.stat().st_size
    with file.open("rb") as handle:
        first = handle.read(len(LFS_POINTER))
        if not first:
            raise BrokenFileError("is empty")
        if first == LFS_POINTER:
            raise BrokenFileError("is a Git LFS pointer, not the weights: run `git lfs pull`")
        length = int.from_bytes(first[:LENGTH_BYTES], "little")
        if length > MAX_HEADER_BYTES or first[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{":
            raise BrokenFileError("is not a safetensors file")
        handle.seek(LENGTH_BYTES)
        header = handle.read(length)
    data = LENGTH_BYTES + length
    if len(header) < length:
        raise BrokenFileError(f"is cut off: it has {size:,} bytes, and its header alone {data:,}")
    tensors = [
        _tensor(name, entry, data)
        for name, entry in _entries(header).items()
        if name != "__metadata__"
    ]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.end))
    _check_places(tensors, data, size)
    return tensors


def _entries(header: bytes) -> dict[str, Any]:
    try:
        entries = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise BrokenFileError("has a damaged header, which is not JSON") from error
    if not isinstance(entries, dict):
        raise BrokenFileError("has a damaged header, which lists no tensors")
    return entries


def _tensor(name: str, entry: Any, data: int) -> StoredTensor:
    try:
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        numbers = [*shape, begin, end]
        whole = all(type(number) is int and number >= 0 for number in numbers)
        fits = whole and math.prod(shape) * BITS[dtype] == (end - begin) * 8
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenFileError(f"has a damaged header at tensor {name}") from error
    if not fits:
        raise BrokenFileError(
            f"has a damaged header: tensor {name} of shape {list(shape)} and type {dtype} "
            "does not fit the bytes that it is given"
        )
    return StoredTensor(name, dtype, shape, data + begin, data + end)


def _check_places(tensors: list[StoredTensor], data: int, size: int) -> None:
    """Raise BrokenFileError unless the tensors fill the file without gaps."""
    end = tensors[-1].end if tensors else data
    if size < end:
        cut = next(tensor for tensor in tensors if tensor.end > size)
        raise BrokenFileError(
            f"is cut off: it has {size:,} of {end:,} bytes and ends in tensor {cut.name}"
        )
    starts = [data, *(tensor.end for tensor in tensors)]
    for expected, tensor in zip(starts, tensors, strict=False):
        if tensor.start != expected:
            raise BrokenFileError(f"has a damaged header: tensor {tensor.name} is misplaced")
    if size > end:
        raise BrokenFileError(f"has {size - end:,} bytes more than its header says")
