"""Tensors' values in memory of which nothing around them can be used unnoticed."""

from __future__ import annotations

import ctypes
import mmap
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LIBC: Any = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
ALIGNMENT = 16
"""Bytes that a thread reads at once. A tensor begins at the same place between such units."""
GUARD = 64 << 20
"""Inaccessible bytes on each side; they take no memory."""
UNUSED = 0xFF
"""Fills memory that no tensor has; as a number of any type it is NaN."""


@dataclass
class Region:
    """A copy of the memory that some tensors share."""

    names: list[str]
    start: int
    """Address of the original."""
    end: int
    mapped: int
    """Address of the memory around the copy, with what is inaccessible."""
    pages: int
    """Bytes that are accessible."""
    copy: int
    """Address of the copy."""
    is_used: Tensor
    """Whether each byte belongs to an element of a tensor."""

    @property
    def whole(self) -> Tensor:
        return bytes_at(self.mapped + GUARD, self.pages)

    @property
    def own(self) -> Tensor:
        return bytes_at(self.copy, self.end - self.start)


class Guarded:
    """Copies of tensors, each between inaccessible pages. Tensors that overlap stay together."""

    def __init__(self, at_end: bool) -> None:
        """`at_end`: the inaccessible page is right behind a tensor, and not right before it."""
        self._at_end = at_end
        self._regions: list[Region] = []

    def __enter__(self) -> Guarded:
        return self

    def __exit__(self, *_: object) -> None:
        for region in self._regions:
            LIBC.munmap(region.mapped, region.pages + 2 * GUARD)

    def take(self, tensors: dict[str, Tensor]) -> dict[str, int]:
        """Copy the tensors; returns the addresses of the copies."""
        filled = {name: value for name, value in tensors.items() if value.numel()}
        groups: list[list[str]] = []
        end = 0
        for name in sorted(filled, key=lambda name: filled[name].data_ptr()):
            if filled[name].data_ptr() >= end:
                groups.append([])
            groups[-1].append(name)
            end = max(end, extent(filled[name])[1])
        places = dict.fromkeys(tensors, mmap.PAGESIZE)  # of an empty one: inaccessible
        for names in groups:
            region = self._copy({name: filled[name] for name in names})
            self._regions.append(region)
            for name in names:
                places[name] = region.copy + filled[name].data_ptr() - region.start
        return places

    def give_back(self) -> None:
        """Copy the values back. Raises AssertionError where other memory was written."""
        for region in self._regions:
            original = bytes_at(region.start, region.end - region.start)
            got = region.own.clone()
            region.own[region.is_used] = UNUSED
            assert bool((region.whole == UNUSED).all()), f"writes beside {region.names}"
            original.copy_(torch.where(region.is_used, got, original))

    def explain(self, fault: str) -> str:
        """Replace an address by its place relative to the nearest tensor."""
        found = re.search(r"address (0x\w+)", fault)
        if not found or not self._regions:
            return fault
        address = int(found[1], 16)
        nearest = min(self._regions, key=lambda region: abs(region.copy - address))
        offset, size = address - nearest.copy, nearest.own.numel()
        where = f"{-offset} bytes before" if offset < 0 else f"{offset - size} bytes after"
        return fault.replace(found[0], f"{where} {', '.join(nearest.names)}")

    def _copy(self, tensors: dict[str, Tensor]) -> Region:
        extents = [extent(value) for value in tensors.values()]
        start, end = min(first for first, _ in extents), max(last for _, last in extents)
        size, offset = end - start, start % ALIGNMENT
        pages = -(-(size + 2 * ALIGNMENT) // mmap.PAGESIZE) * mmap.PAGESIZE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        mapped = LIBC.mmap(None, pages + 2 * GUARD, 0, flags, -1, 0)
        inner = mapped + GUARD
        LIBC.mprotect(inner, pages, mmap.PROT_READ | mmap.PROT_WRITE)
        last = inner + pages - size
        copy = last - (last - offset) % ALIGNMENT if self._at_end else inner + offset
        is_used = torch.zeros(size, dtype=torch.bool)
        for value in tensors.values():
            item = value.element_size()
            strides = [stride * item for stride in value.stride()]
            first = value.data_ptr() - start
            is_used.as_strided((*value.shape, item), (*strides, 1), first).fill_(True)
        region = Region([*tensors], start, end, mapped, pages, copy, is_used)
        region.whole.fill_(UNUSED)
        region.own[is_used] = bytes_at(start, size)[is_used]
        return region


def extent(value: Tensor) -> tuple[int, int]:
    """Address of a tensor's first byte, and of that after its last."""
    places = zip(value.shape, value.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in places)
    return value.data_ptr(), value.data_ptr() + (last + 1) * value.element_size()


def bytes_at(address: int, size: int) -> Tensor:
    """Memory as a tensor."""
    return torch.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=torch.uint8)
