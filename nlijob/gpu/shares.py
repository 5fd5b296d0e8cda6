"""Splits the rows of an optimizer step between the processes of a group, by tokens.

The rule is fixed, so all processes know every share without asking each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
