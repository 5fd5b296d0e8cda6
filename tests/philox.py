"""Masks of dropout by row, computed one by one with Python's own numbers: a reference for both
implementations. Philox4x32-10 is that of Salmon et al., 2011."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WORD = 0xFFFFFFFF


def philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Four words for a counter of four and a key of two."""
    (a, b, c, d), (low, high) = counter, key
    for _ in range(10):
        one, two = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (two >> 32) ^ b ^ low, two & WORD, (one >> 32) ^ d ^ high, one & WORD
        low, high = (low + 0x9E3779B9) & WORD, (high + 0xBB67AE85) & WORD
    return a, b, c, d


def kept(
    seed: int, step: int, call: int, rows: list[int], positions: list[int], width: int, share: float
) -> NDArray[np.uint8]:
    """The mask [tokens, width] of tokens at these places."""
    mask = np.zeros((len(rows), width), dtype=np.uint8)
    for token, (row, position) in enumerate(zip(rows, positions, strict=True)):
        for column in range(width):
            place = (call << 16 | column // 8, position, row & WORD, step)
            words = philox(place, (seed & WORD, seed >> 32))
            lane = words[column % 8 // 2] >> column % 2 * 16 & 0xFFFF
            mask[token, column] = lane >= round(share * 65536)
    return mask
