"""Splits the rows of an optimizer step between the processes of a group, by tokens.

The rule is fixed, so all processes know every share without asking each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nlijob.gpu.group import Group
from nlijob.gpu.heads import Encoded


@dataclass(frozen=True)
class Share:
    """The rows that a process computes at once, among those that they belong to."""

    rows: Sequence[Encoded]
    """All rows of the micro-batch, or of the effective batch."""
    places: Sequence[int]
    """Places of the process's own rows in `rows`, ascending; a process may have none."""

    @property
    def own(self) -> list[Encoded]:
        """The process's own rows."""
        return [self.rows[place] for place in self.places]


def split(tokens: Sequence[int], processes: int) -> list[list[int]]:
    """Which rows each process computes, ascending; `tokens` are each row's.

    The longest row comes first, and each goes to the process with the fewest tokens so far (Graham,
    1969, Bounds on Multiprocessing Timing Anomalies). So no two processes differ by more tokens
    than the longest row has.
    """
    totals = [0] * processes
    shares: list[list[int]] = [[] for _ in range(processes)]
    for row in sorted(range(len(tokens)), key=lambda row: (-tokens[row], row)):
        process = totals.index(min(totals))
        totals[process] += tokens[row]
        shares[process].append(row)
    return [sorted(share) for share in shares]


def own_places(rows: Sequence[Encoded], group: Group, prefix: int = 0) -> list[int]:
    """Places of this process's rows; `prefix` tokens of each are computed once for all."""
    return split([row.length - prefix for row in rows], group.size)[group.rank]


def share_totals(
    lengths: NDArray[np.int64], at_once: int, group: Group, prefix: int = 0
) -> NDArray[np.int64]:
    """Tokens of each pack in which this process computes its share of many batches.

    `lengths` [batches, rows]: each row's tokens, 0 where there is no row. A share is computed
    `at_once` rows at a time. The shares are those that `split` gives; a loop over all batches of a
    long training would take longer than to train for a while.
    """
    own = _owners(lengths - prefix, group.size) == group.rank
    own &= lengths > 0
    held = np.where(own, lengths - prefix, 0)
    pack = (own.cumsum(1) - 1) // at_once
    totals = [np.zeros(0, np.int64)]
    for number in range(-(-lengths.shape[1] // at_once)):
        inside = own & (pack == number)
        totals.append(prefix + (held * inside).sum(1)[inside.any(1)])
    return np.concatenate(totals)


def in_micro_batches(lengths: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """[micro-batches, size] of the rows [steps, rows] that are computed `size` at a time."""
    padded = np.pad(lengths, ((0, 0), (0, -lengths.shape[1] % size)))
    return padded.reshape(-1, size)


def _owners(tokens: NDArray[np.int64], processes: int) -> NDArray[np.int64]:
    """The process that computes each row [batches, rows]: the rule of `split`, in all batches."""
    every = np.arange(len(tokens))
    totals = np.zeros((len(tokens), processes), np.int64)
    owners = np.zeros_like(tokens)
    if processes > 1:
        for row in np.argsort(-tokens, axis=1, kind="stable").T:
            owners[every, row] = process = totals.argmin(1)
            totals[every, process] += tokens[every, row]
    return owners


def shares_within(
    micro_batches: Iterable[Sequence[Encoded]], group: Group, prefix: int = 0
) -> list[Share]:
    """This process's share of each micro-batch, which may be empty."""
    return [Share(rows, own_places(rows, group, prefix)) for rows in micro_batches]


def shares_of_batch(
    rows: Sequence[Encoded], size: int, group: Group, prefix: int = 0
) -> list[Share]:
    """This process's rows of an effective batch, at most `size` at a time."""
    places = own_places(rows, group, prefix)
    return [Share(rows, places[start : start + size]) for start in range(0, len(places), size)]
