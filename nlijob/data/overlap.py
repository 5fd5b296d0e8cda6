"""What the splits of a subset have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from nlijob.records.job import Example


def shared_premises(examples: Mapping[str, Sequence[Example]]) -> dict[str, int]:
    """Pair of splits, such as "train+test" -> number of premises that occur in both."""
    premises = {split: {e.premise for e in rows} for split, rows in examples.items()}
    return {f"{a}+{b}": len(premises[a] & premises[b]) for a, b in combinations(premises, 2)}
