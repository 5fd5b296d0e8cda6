"""Dropout by row: whether a value is kept follows from its row alone.

In packs on a GPU, a row's values are dropped alike whatever other rows are in its pack, and
whichever process computes it. Each value has a place: the layer (or rather the call of dropout),
the row's number in the effective batch, the token's position in the row, and the column. A
counter-based generator turns the place, the seed and the step into random bits, so nothing is drawn
in an order, and there is no state to save. A prefix that rows share counts as a row of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nlijob.gpu.fast.cuda import Source
from nlijob.gpu.fast.dropout import LEVELS

SOURCE = Source("dropout.cu")
THREADS = 256
VECTOR = 8
"""Columns that share one call of the generator, with 16 bits each."""
CALL_BITS = 16
"""Position of the call's number above the number of the eight columns in a word of the counter."""
WORD = 0xFFFFFFFF
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
INCREMENTS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10

Words = tuple[Tensor | int, ...]


def philox(counter: Words, key: Words) -> tuple[Tensor, ...]:
    """Four random words for a counter of four words and a key of two: Philox4x32-10.

    All are int64 tensors of values below 2^32, or numbers. Salmon et al., 2011, Parallel Random
    Numbers: As Easy as 1, 2, 3.
    """
    c0, c1, c2, c3 = (torch.as_tensor(word) for word in counter)
    k0, k1 = key
    for _ in range(ROUNDS):
        # the product may exceed 63 bits; what is cut off does not change these halves
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (second >> 32 & WORD) ^ c1 ^ k0,
            second & WORD,
            (first >> 32 & WORD) ^ c3 ^ k1,
            first & WORD,
        )
        k0, k1 = (k0 + INCREMENTS[0]) & WORD, (k1 + INCREMENTS[1]) & WORD
    return c0, c1, c2, c3


class RowMasks:
    """The masks of the pack that is computed."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        """`dtype`: of the values. Raises Unsupported where the kernel cannot be compiled."""
        if device.type == "cuda":
            SOURCE.compile(device, dtype)
        self._like = torch.empty(0, device=device, dtype=dtype)
        self._key = torch.zeros(3, device=device, dtype=torch.int32)
        """Seed, in two parts, and step. On the device, as graphs read them there."""
        self.rows = self.positions = self._last = self._key[:0]

    def start(self, seed: int, step: int) -> None:
        """Continue with a seed at a step."""
        words = seed & WORD, seed >> 32 & WORD, step & WORD
        signed = [word - (word >> 31 << 32) for word in words]
        self._key.copy_(torch.tensor(signed, dtype=torch.int32))

    def next_step(self) -> None:
        """Draw for the next step from now on; may be captured."""
        self._key[2].add_(1)

    def place(self, rows: Tensor, positions: Tensor, last: Tensor) -> None:
        """Take the places of a pack's tokens, all int32.

        `rows`, `positions`: [tokens], row number and position of each. `last`: [rows], the token
        after which each row ends.
        """
        self.rows, self.positions, self._last = rows, positions, last

    def kept(self, values: Tensor, call: Tensor, share: float) -> Tensor | None:
        """Whether dropout of `share` keeps each of the values: bool, their shape.

        values: [tokens, width], or [rows, width] of the rows' last tokens. None where they are of
        something else. `call`: the number of this call, int32 on the device.
        """
        if len(values) == len(self.rows):
            rows, positions = self.rows, self.positions
        elif len(values) == len(self._last):
            rows, positions = self.rows[self._last.long()], self.positions[self._last.long()]
        else:
            return None
        places = (self._like, rows, positions, self._key, call)
        given = (*places, 1, values.shape[1], round(share * LEVELS))
        if torch.compiler.is_compiling():
            drawn: Tensor = _OPERATION(*given)
            return drawn[0] != 0  # torch 2.11's compiler cannot view bytes as bool
        # calling the operation itself would import torch's compiler, which takes seconds
        return keep_by_row(*given)[0].view(torch.bool)

    def masks(self, values: Tensor, calls: Tensor, share: float) -> Tensor:
        """Masks [calls, tokens, width] of several calls, uint8: 1 for a value that is kept.

        `calls`: the number of each, int32 on the device.
        """
        places = (self._like, self.rows, self.positions, self._key, calls)
        return keep_by_row(*places, len(calls), values.shape[1], round(share * LEVELS))


def keep_by_row(
    like: Tensor,
    rows: Tensor,
    positions: Tensor,
    key: Tensor,
    call: Tensor,
    calls: int,
    width: int,
    dropped: int,
) -> Tensor:
    """The kernel of this name, in a new tensor; on a CPU, the same by torch's operations.

    `call`: the numbers of so many `calls`, int32.
    """
    if not rows.is_cuda:
        return _computed(rows, positions, key, call, calls, width, dropped)
    tokens = len(rows)
    kept = rows.new_empty(calls, tokens, width, dtype=torch.uint8)
    blocks = -(-calls * tokens * -(-width // VECTOR) // THREADS)
    given = (like, kept, rows, positions, key, call, calls, tokens, width, dropped)
    SOURCE.launch("keep_by_row", (blocks, 1), THREADS, *given)
    return kept


_OPERATION = torch.library.custom_op("nlijob::keep_by_row", keep_by_row, mutates_args=())
"""The same as an operation of torch, so that layers with it can be compiled."""


@_OPERATION.register_fake
def _shape(
    like: Tensor,
    rows: Tensor,
    positions: Tensor,
    key: Tensor,
    call: Tensor,
    calls: int,
    width: int,
    dropped: int,
) -> Tensor:
    # len() would fix the number of tokens
    return rows.new_empty(calls, rows.shape[0], width, dtype=torch.uint8)


def _computed(
    rows: Tensor, positions: Tensor, key: Tensor, call: Tensor, calls: int, width: int, dropped: int
) -> Tensor:
    number = call.long().view(calls, 1, 1)
    group = torch.arange(-(-width // VECTOR))
    seed_low, seed_high, step = (key.long() & WORD).unbind()
    at, row = positions.long().unsqueeze(-1), rows.long().unsqueeze(-1) & WORD
    words = philox((number << CALL_BITS | group, at, row, step), (seed_low, seed_high))
    halves = [half for word in words for half in (word & 0xFFFF, word >> 16)]
    lanes = torch.stack(halves, -1).flatten(-2)[..., :width]
    return (lanes >= dropped).to(torch.uint8)
