"""How often the 95 % intervals and tests hold where rows share a premise, by simulation.

`python -m benchmarks.coverage` prints a table; docs/results.md has its figures. Each premise draws
its own chance of a right answer from a beta distribution, which gives the wanted correlation of
rows with the same premise. Balanced: three rows for each premise. Skewed: 1 to 9, 3 on average.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlijob.analysis.clustered import accuracy_interval, paired_difference
from nlijob.analysis.statistics import mcnemar_p, paired_difference_interval, wilson_interval
from nlijob.records.intervals import Interval
from nlijob.records.outcome import SIGNIFICANT

Array = NDArray[Any]
ROWS = (98, 491, 4_914)
CORRELATIONS = (0.0, 0.06, 0.15)
ROWS_A_PREMISE = 3
SKEWED_SIZES = (1, 1, 1, 1, 2, 2, 3, 4, 6, 9)
"""Sizes of premises, equally frequent; 3 on average."""
ACCURACY, BASE_ACCURACY = 0.8, 0.7


@dataclass(frozen=True)
class Coverage:
    """Shares of simulated samples (0 to 1)."""

    rows: int
    correlation: float
    sizes: str
    accuracy: float
    """Samples whose interval of the accuracy holds the true one."""
    accuracy_by_rows: float
    """The same for Wilson's interval that takes rows as independent."""
    gain: float
    gain_by_rows: float
    false_alarms: float
    """Samples of two equally good models whose test is significant."""
    false_alarms_by_rows: float


def measure(rows: int, correlation: float, sizes: str, samples: int, seed: int = 5) -> Coverage:
    """Coverage of the intervals, and false alarms of the test, over that many samples."""
    random = np.random.Generator(np.random.PCG64([seed, rows, round(1000 * correlation)]))
    found = np.array([list(_sample(random, rows, correlation, sizes)) for _ in range(samples)])
    return Coverage(rows, correlation, sizes, *(float(share) for share in found.mean(axis=0)))


def _sample(
    random: np.random.Generator, rows: int, correlation: float, sizes: str
) -> Iterator[bool]:
    premises = _premises(random, rows, sizes)
    tuned = _right(random, ACCURACY, premises, correlation)
    base, equal = (
        _right(random, accuracy, premises, correlation) for accuracy in (BASE_ACCURACY, ACCURACY)
    )
    yield _holds(accuracy_interval(tuned.tolist(), premises.tolist()), ACCURACY)
    yield _holds(wilson_interval(int(tuned.sum()), rows), ACCURACY)
    gained, lost = int((tuned & ~base).sum()), int((base & ~tuned).sum())
    change = paired_difference(tuned.tolist(), base.tolist(), premises.tolist())
    yield _holds(change.interval, ACCURACY - BASE_ACCURACY)
    yield _holds(paired_difference_interval(gained, lost, rows), ACCURACY - BASE_ACCURACY)
    none = paired_difference(tuned.tolist(), equal.tolist(), premises.tolist())
    yield none.mcnemar_p < SIGNIFICANT
    yield mcnemar_p(none.gained, none.lost) < SIGNIFICANT


def _premises(random: np.random.Generator, rows: int, sizes: str) -> Array:
    """The premise number of each row."""
    if sizes == "balanced":
        return np.asarray(np.arange(rows) // ROWS_A_PREMISE)
    drawn = random.choice(SKEWED_SIZES, size=rows)
    return np.asarray(np.repeat(np.arange(rows), drawn)[:rows])


def _right(
    random: np.random.Generator, accuracy: float, premises: Array, correlation: float
) -> Array:
    """Which rows are right; rows with the same premise have this correlation."""
    if not correlation:
        return np.asarray(random.random(len(premises)) < accuracy)
    strength = 1 / correlation - 1
    chances = random.beta(accuracy * strength, (1 - accuracy) * strength, size=premises[-1] + 1)
    return np.asarray(random.random(len(premises)) < chances[premises])


def _holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=4_000)
    samples = parser.parse_args().samples
    print("| rows | correlation | rows a premise | accuracy | gain | false alarms |")
    print("|---|---|---|---|---|---|")
    for rows in ROWS:
        for correlation in CORRELATIONS:
            for sizes in ("balanced", "skewed"):
                found = measure(rows, correlation, sizes, samples)
                shares = (
                    (found.accuracy, found.accuracy_by_rows),
                    (found.gain, found.gain_by_rows),
                    (found.false_alarms, found.false_alarms_by_rows),
                )
                cells = " | ".join(f"{100 * a:.1f} ({100 * b:.1f})" for a, b in shares)
                print(f"| {rows:,} | {correlation:g} | {sizes} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
